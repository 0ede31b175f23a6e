-- Everybody else's append: the caller holds the head's lock, has read the tail and decided. `document` has the job's
-- whole head row, its owner included, the new events, and the request it answers, if any.

create function append_to_head(document json) returns void
language plpgsql volatile
set search_path from current
set enable_seqscan = off
as $$
declare
    head jobs := json_populate_record(null::jobs, document -> 'head');
begin
    insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)
    select head.job_id, new.version, new.event_id, new.type, new.schema_version, new.recorded_at, new.data, new.hash
    from json_to_recordset(document -> 'events') as new (
        version bigint, event_id uuid, type text, schema_version integer, recorded_at timestamptz, data json, hash text
    );

    update jobs set
        version = head.version,
        hash = head.hash,
        recorded_at = head.recorded_at,
        epoch = head.epoch,
        claim_id = head.claim_id,
        worker_id = head.worker_id,
        workflow = head.workflow,
        status = head.status,
        created_at = head.created_at,
        updated_at = head.updated_at,
        mode = head.mode,
        phase = head.phase,
        last_error = head.last_error,
        failed_sub_step = head.failed_sub_step,
        wake_at = head.wake_at,
        ended_at = head.ended_at,
        done = head.done,
        total = head.total,
        key = head.key,
        tags = head.tags,
        priority = head.priority,
        batch_id = head.batch_id
    where jobs.job_id = head.job_id;

    if document ->> 'request_id' is not null then
        insert into requests (job_id, request_id, version)
        values (head.job_id, document ->> 'request_id', head.version);
    end if;
end
$$;
