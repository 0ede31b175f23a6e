-- Jobs whose events were exported and removed. Their heads and keys stay, so that no id and no key comes back. Only
-- `prune_job` removes events, and only an administrator may call it.

create table pruned (
    job_id    uuid        not null primary key,
    version   bigint      not null,
    hash      text        not null collate "C",
    pruned_at timestamptz not null default clock_timestamp()
);

create or replace function refuse_change() returns trigger
language plpgsql
set search_path from current
as $$
begin
    if tg_op = 'DELETE' and current_setting('steplog.pruning', true) = 'on' then
        return null;
    end if;
    raise exception using
        errcode = 'restrict_violation',
        message = format('events are append-only: %s refused', lower(tg_op));
end
$$;

create function prune_job(job uuid, expected_version bigint, expected_hash text) returns boolean
language plpgsql volatile security definer
set search_path from current
as $$
begin
    perform from jobs
    where jobs.job_id = job and jobs.version = expected_version and jobs.hash = expected_hash
      and jobs.status in ('completed', 'cancelled') and jobs.worker_id is null
    for update;
    if not found then
        return false;
    end if;
    insert into pruned (job_id, version, hash) values (job, expected_version, expected_hash) on conflict do nothing;
    perform set_config('steplog.pruning', 'on', true);
    delete from events where events.job_id = job;
    perform set_config('steplog.pruning', 'off', true);
    delete from snapshots where snapshots.job_id = job;
    return true;
end
$$;

revoke execute on function prune_job (uuid, bigint, text) from public;

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_reader') then
        grant select on pruned to steplog_reader;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant select on pruned to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant select on pruned to steplog_admin;
        grant execute on function prune_job (uuid, bigint, text) to steplog_admin;
    end if;
end
$$;
