-- The owner's append of one job: what `append` does for a batch, in statements that each name the job, so that a
-- distributed PostgreSQL can send them to where it lies, and for one job alone a quarter cheaper. The answer is one
-- value, the job with its code and version: a set would cost as much again as a statement.

create function append_one(
    job uuid, expected_version bigint, expected_hash text, of_epoch bigint, of_claim text, release boolean,
    new_head json, new_events json
) returns json
language plpgsql volatile
set search_path from current
set enable_seqscan = off
as $$
declare
    head record;
    new jobs;
begin
    -- A head is read as it is once it is locked, also where it was changed after the statement began.
    select jobs.version, jobs.hash, jobs.epoch, jobs.claim_id into head from jobs
    where jobs.job_id = job
    for no key update skip locked;

    if (head.version, head.hash, head.epoch, head.claim_id) = (expected_version, expected_hash, of_epoch, of_claim) then
        insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)
        select job, event.version, event.event_id, event.type, event.schema_version, event.recorded_at, event.data, event.hash
        from json_to_recordset(new_events) as event (
            version bigint, event_id uuid, type text, schema_version integer, recorded_at timestamptz, data json,
            hash text
        );

        new := json_populate_record(null::jobs, new_head);
        update jobs set
            version = new.version,
            hash = new.hash,
            recorded_at = new.recorded_at,
            claim_id = case when release then null else jobs.claim_id end,
            worker_id = case when release then null else jobs.worker_id end,
            workflow = new.workflow,
            status = new.status,
            created_at = new.created_at,
            updated_at = new.updated_at,
            mode = new.mode,
            phase = new.phase,
            last_error = new.last_error,
            failed_sub_step = new.failed_sub_step,
            wake_at = new.wake_at,
            ended_at = new.ended_at,
            done = new.done,
            total = new.total,
            key = new.key,
            tags = new.tags,
            priority = new.priority,
            batch_id = new.batch_id
        where jobs.job_id = job;
        return json_build_array(job, 'stored', new.version);
    end if;

    return (
        select json_build_array(job, refused.code, refused.version)
        from refusal(
            job, head.version is not null, expected_version, expected_hash, of_epoch, of_claim, new_events
        ) as refused
    );
end
$$;

revoke execute on function append_one (uuid, bigint, text, bigint, text, boolean, json, json) from public;

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant execute on function append_one (uuid, bigint, text, bigint, text, boolean, json, json) to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant execute on function append_one (uuid, bigint, text, bigint, text, boolean, json, json) to steplog_admin;
    end if;
end
$$;
