-- Schedules that workers have declared, and how far each has fired. That one fires once is the key of its job; this
-- says from when on a worker looks for firings that nobody made.

create table schedules (
    workflow text        not null collate "C",
    name     text        not null collate "C",
    cron     text        not null,
    timezone text        not null,
    missed   text        not null check (missed in ('skip', 'latest', 'all')),
    seen_at  timestamptz not null default clock_timestamp(),
    last_at  timestamptz,
    primary key (workflow, name)
);

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_reader') then
        grant select on schedules to steplog_reader;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant select, insert, update on schedules to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant select, insert, update, delete on schedules to steplog_admin;
    end if;
end
$$;
