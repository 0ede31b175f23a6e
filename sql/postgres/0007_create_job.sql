-- A new job: its key, its head and its first events, or what stands in its way.

create function create_job(document json) returns table (code text, job_id uuid)
language plpgsql volatile
set search_path from current
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    head jobs := json_populate_record(null::jobs, document -> 'head');
    input text := document ->> 'input_hash';
    holder job_keys;
begin
    if head.worker_id is not null
        and not exists (select from workers where workers.worker_id = head.worker_id and workers.state = 'alive')
        and not exists (select from jobs where jobs.job_id = head.job_id)
        and not exists (select from job_keys where job_keys.workflow = head.workflow and job_keys.key = head.key)
    then
        return query select 'worker dead', head.job_id;
        return;
    end if;

    if head.key is not null then
        insert into job_keys (workflow, key, job_id, input_hash)
        values (head.workflow, head.key, head.job_id, input)
        on conflict (workflow, key) do nothing;
        if not found then
            select * into holder from job_keys
            where job_keys.workflow = head.workflow and job_keys.key = head.key;
            if holder.job_id <> head.job_id then
                return query
                    select case when holder.input_hash = input then 'exists' else 'key conflict' end, holder.job_id;
                return;
            end if;
        end if;
    end if;

    insert into jobs select head.* on conflict (job_id) do nothing;
    if found then
        insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)
        select head.job_id, new.version, new.event_id, new.type, new.schema_version, new.recorded_at, new.data, new.hash
        from json_to_recordset(document -> 'events') as new (
            version bigint, event_id uuid, type text, schema_version integer, recorded_at timestamptz, data json,
            hash text
        );
        return query select 'stored', head.job_id;
        return;
    end if;

    if not stored_before(
        head.job_id, 0, array(select (new ->> 'event_id')::uuid from json_array_elements(document -> 'events') as new)
    ) then
        raise exception using
            errcode = 'unique_violation',
            message = format('job id %s belongs to another job', head.job_id);
    end if;
    return query select 'stored', head.job_id;
end
$$;
