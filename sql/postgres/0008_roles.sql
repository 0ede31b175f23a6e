-- Least privilege: the app appends and reads, a reader reads, an admin holds both. Roles belong to the whole cluster;
-- where this user may not create one that is not there, its grants are left out with a warning.

do $$
declare
    steplog_role text;
begin
    foreach steplog_role in array array['steplog_app', 'steplog_reader', 'steplog_admin'] loop
        begin
            if not exists (select from pg_catalog.pg_roles where rolname = steplog_role) then
                execute format('create role %I nologin', steplog_role);
            end if;
        exception
            when insufficient_privilege then
                raise warning 'role % was not created: not allowed here', steplog_role;
            when duplicate_object or unique_violation then
                null;
        end;
    end loop;
end
$$;

do $$
declare
    here text := quote_ident(current_schema());
begin
    execute format('revoke execute on all functions in schema %s from public', here);

    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_reader') then
        execute format('grant usage on schema %s to steplog_reader', here);
        execute format('grant select on all tables in schema %s to steplog_reader', here);
        grant execute on function instant (timestamptz) to steplog_reader;
    end if;

    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        execute format('grant usage on schema %s to steplog_app', here);
        execute format('grant select on all tables in schema %s to steplog_app', here);
        execute format('grant execute on all functions in schema %s to steplog_app', here);
        grant insert on events, jobs, snapshots, job_keys, requests, workers, workflows, projections,
            quarantine to steplog_app;
        grant update on jobs, workers, workflows, projections, quarantine to steplog_app;
        grant delete on quarantine to steplog_app;
    end if;

    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        execute format('grant usage, create on schema %s to steplog_admin', here);
        execute format('grant select on all tables in schema %s to steplog_admin', here);
        execute format('grant execute on all functions in schema %s to steplog_admin', here);
        grant insert on events, jobs, snapshots, job_keys, requests, workers, workflows, projections,
            quarantine to steplog_admin;
        grant update, delete on jobs, snapshots, job_keys, requests, workers, workflows, projections,
            quarantine to steplog_admin;
    end if;
end
$$;
