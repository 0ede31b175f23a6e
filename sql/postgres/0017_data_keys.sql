-- Each job's own key to its sealed values, wrapped by a key that is not here; null once it was destroyed. Not part of
-- the log: the chain covers what is sealed, and stays whole without the key.

create table data_keys (
    job_id    uuid        not null primary key,
    wrapped   text        collate "C",
    erased_at timestamptz,
    check ((wrapped is null) = (erased_at is not null))
);

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant select, insert, update on data_keys to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant select, insert, update on data_keys to steplog_admin;
    end if;
end
$$;
