-- What projections keep: documents by key, of a job by its id. A generation is built beside the one that is read, and
-- takes its place whole.

create table projected (
    projection text    not null collate "C",
    generation integer not null,
    key        text    not null collate "C",
    version    bigint  not null,
    document   json    not null,
    primary key (projection, generation, key)
);

-- A page of the user's own may go on reading this.
create table registration_job_steps (
    job_id            text        not null collate "C",
    step_number       integer     not null,
    status            text        not null,
    sub_step_progress jsonb       not null,
    error_message     text,
    updated_at        timestamptz not null,
    primary key (job_id, step_number)
);

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_reader') then
        grant select on projected, registration_job_steps to steplog_reader;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant select, insert, update, delete on projected, registration_job_steps to steplog_app;
        grant delete on projections to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant select, insert, update, delete on projected, registration_job_steps to steplog_admin;
    end if;
end
$$;
