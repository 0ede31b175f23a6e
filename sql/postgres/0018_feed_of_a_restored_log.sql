-- Which transaction stored an event is this server's own count and means nothing on another one: dumped as data, it
-- kept restored events out of the feed, and let them into it again once the new server's count had come so far. What
-- is generated is not dumped; a restore makes it anew.

-- It is not immutable, and is called so because a generated column takes nothing else. The argument keeps the planner
-- from taking it for a constant.
create function transaction_storing(job_id uuid) returns xid8
language plpgsql immutable
as $$
begin
    return pg_catalog.pg_current_xact_id();
end
$$;

alter table events drop column xid;

alter table events add column xid xid8 not null generated always as (transaction_storing(job_id)) stored;

create index events_by_xid on events (xid);

-- A table that was restored is another one, and its cursors say so.
create function events_table() returns oid
language sql stable
set search_path from current
as $$
    select 'events'::regclass::oid
$$;

do $$
declare
    steplog_role text;
begin
    revoke execute on function transaction_storing (uuid), events_table () from public;
    foreach steplog_role in array array['steplog_reader', 'steplog_app', 'steplog_admin'] loop
        if exists (select from pg_catalog.pg_roles where rolname = steplog_role) then
            execute format('grant execute on function events_table () to %I', steplog_role);
            if steplog_role <> 'steplog_reader' then
                execute format('grant execute on function transaction_storing (uuid) to %I', steplog_role);
            end if;
        end if;
    end loop;
end
$$;
