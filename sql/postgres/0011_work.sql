-- What a worker may claim, found by what is due and owned alone: jobs that have ended, or sleep, cost nothing.

drop index jobs_due;
create index jobs_due on jobs (workflow, priority desc, wake_at) where worker_id is null and wake_at is not null;
create index jobs_by_batch on jobs (batch_id, status) where batch_id is not null;

-- The ids of jobs nobody owns whose time has come, at most `most` of each workflow, by priority and then by time; when
-- the next one falls due; and the owners of jobs that are dead, have ended, or were started on the machine of `boot`
-- and may be found dead there. `used_up` names workflow and tags of what a limit lets nobody claim now. Each priority is a range of the index, so what sleeps is stepped over.
create function look_for_work(
    of_workflows text[], most integer, refused_jobs uuid[], refused_versions bigint[], used_up jsonb, boot text
) returns json
language plpgsql volatile
set search_path from current
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    present timestamptz := clock_timestamp();
    due uuid[] := '{}';
    found_ids uuid[];
    next_at timestamptz;
    soonest timestamptz;
    of_workflow text;
    of_priority integer;
    room integer;
    owner text;
    owners text[] := '{}';
begin
    foreach of_workflow in array of_workflows loop
        room := most;
        of_priority := (
            select priority from jobs
            where worker_id is null and wake_at is not null and workflow = of_workflow
            order by priority desc limit 1
        );
        while of_priority is not null and room > 0 loop
            found_ids := array(
                select job_id from jobs
                where worker_id is null and wake_at is not null and workflow = of_workflow and priority = of_priority
                  and wake_at <= present
                  and not exists (
                      select from unnest(refused_jobs, refused_versions) as refused (job_id, version)
                      where refused.job_id = jobs.job_id and refused.version = jobs.version
                  )
                  and not exists (
                      select from jsonb_array_elements(used_up) as held
                      where held ->> 'workflow' = jobs.workflow and jobs.tags @> (held -> 'tags')
                  )
                order by wake_at limit room
            );
            due := due || found_ids;
            room := room - cardinality(found_ids);
            soonest := (
                select wake_at from jobs
                where worker_id is null and wake_at is not null and workflow = of_workflow and priority = of_priority
                  and wake_at > present
                order by wake_at limit 1
            );
            next_at := least(next_at, soonest);
            of_priority := (
                select priority from jobs
                where worker_id is null and wake_at is not null and workflow = of_workflow and priority < of_priority
                order by priority desc limit 1
            );
        end loop;
    end loop;

    owner := (select min(worker_id) from jobs where worker_id is not null);
    while owner is not null loop
        owners := owners || owner;
        owner := (select min(worker_id) from jobs where worker_id > owner);
    end loop;

    return json_build_object(
        'now', instant(present), 'due', due, 'next_at', instant(next_at),
        'owners', (
            select coalesce(json_agg(json_build_array(
                owned.worker_id, workers.host, workers.pid, workers.boot_id, workers.pid_namespace,
                workers.process_started, coalesce(workers.state = 'alive' and workers.expires_at >= present, false)
            )), '[]')
            from unnest(owners) as owned (worker_id)
            left join workers on workers.worker_id = owned.worker_id
            where workers.state is distinct from 'alive' or workers.expires_at < present or workers.boot_id = boot
        )
    );
end
$$;

do $$
declare
    signature text := 'look_for_work (text[], integer, uuid[], bigint[], jsonb, text)';
    steplog_role text;
begin
    execute format('revoke execute on function %s from public', signature);
    foreach steplog_role in array array['steplog_app', 'steplog_admin'] loop
        if exists (select from pg_catalog.pg_roles where rolname = steplog_role) then
            execute format('grant execute on function %s to %I', signature, steplog_role);
        end if;
    end loop;
end
$$;
