-- Many new jobs in one call: those that nothing stands in the way of together, the others each as by create_job. A head
-- says its input_hash too, an event the job_id of its job.
--
-- Keys are taken in their order, so that callers with the same ones wait for each other in turn and not in a circle.

create function create_jobs(heads json, new_events json) returns table (place bigint, code text, job_id uuid)
language plpgsql volatile
set search_path from current
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    has_key uuid[];
    made uuid[];
    other record;
begin
    with taken as (
        insert into job_keys (workflow, key, job_id, input_hash)
        select head.workflow, head.key, head.job_id, head.input_hash
        from json_to_recordset(heads) as head (
            workflow text, key text, job_id uuid, input_hash text, worker_id text
        )
        where head.key is not null
          and (head.worker_id is null or exists (
              select from workers where workers.worker_id = head.worker_id and workers.state = 'alive'
          ))
        order by head.workflow collate "C", head.key collate "C"
        on conflict (workflow, key) do nothing
        returning job_keys.job_id
    )
    select coalesce(array_agg(taken.job_id), '{}') into has_key from taken;

    with stored as (
        insert into jobs select head.* from json_populate_recordset(null::jobs, heads) as head
        where (head.key is null or head.job_id = any (has_key))
          and (head.worker_id is null or exists (
              select from workers where workers.worker_id = head.worker_id and workers.state = 'alive'
          ))
        on conflict (job_id) do nothing
        returning jobs.job_id
    )
    select coalesce(array_agg(stored.job_id), '{}') into made from stored;

    insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)
    select
        event.job_id, event.version, event.event_id, event.type, event.schema_version, event.recorded_at, event.data,
        event.hash
    from unnest(made) as stored (job_id)
    join json_to_recordset(new_events) as event (
        job_id uuid, version bigint, event_id uuid, type text, schema_version integer, recorded_at timestamptz,
        data json, hash text
    ) on event.job_id = stored.job_id;

    return query
        select head.place, 'stored', head.job_id
        from rows from (json_to_recordset(heads) as (job_id uuid)) with ordinality as head (job_id, place)
        where head.job_id = any (made);

    for other in
        select element.document, element.place
        from json_array_elements(heads) with ordinality as element (document, place)
        where (element.document ->> 'job_id')::uuid <> all (made)
        order by element.document ->> 'workflow' collate "C", element.document ->> 'key' collate "C", element.place
    loop
        return query select other.place, alone.code, alone.job_id from create_job(json_build_object(
            'head', other.document,
            'input_hash', other.document ->> 'input_hash',
            'events', (
                select json_agg(event) from json_array_elements(new_events) as event
                where event ->> 'job_id' = other.document ->> 'job_id'
            )
        )) as alone;
    end loop;
end
$$;

revoke execute on function create_jobs (json, json) from public;

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant execute on function create_jobs (json, json) to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant execute on function create_jobs (json, json) to steplog_admin;
    end if;
end
$$;
