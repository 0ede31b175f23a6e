-- The owner's append of one job: what `append` does for a batch, in statements that each name the one job, so that a
-- distributed PostgreSQL can send them to where the job lies.

create function append_one(job uuid, item json, item_events json) returns table (code text, version bigint)
language plpgsql volatile
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    expected bigint := (item ->> 'expected_version')::bigint;
    ids uuid[] := array(select json_array_elements_text(item -> 'event_ids')::uuid);
    new_head jobs := json_populate_record(null::jobs, item -> 'head');
    locked boolean;
    head record;
    hash_at_expected text;
begin
    locked := exists (select from jobs where jobs.job_id = job for no key update skip locked);
    -- Read by a statement of its own: its snapshot comes after the lock.
    select jobs.version, jobs.hash, jobs.epoch, jobs.claim_id into head from jobs where jobs.job_id = job;

    if head.version is null then
        return query select 'missing', 0::bigint;
        return;
    end if;
    if not locked then
        return query select 'busy', head.version;
        return;
    end if;
    if head.version > expected and stored_before(job, expected, ids) then
        return query select 'stored', head.version;
        return;
    end if;
    hash_at_expected := case
        when head.version = expected then head.hash
        else coalesce((select events.hash from events where events.job_id = job and events.version = expected), '')
    end;
    if head.version < expected or (expected > 0 and hash_at_expected <> item ->> 'expected_hash') then
        return query select 'regressed', head.version;
        return;
    end if;
    if head.epoch <> (item ->> 'epoch')::bigint or head.claim_id is distinct from item ->> 'claim_id' then
        return query select 'fenced', head.version;
        return;
    end if;
    if head.version > expected then
        return query select 'conflict', head.version;
        return;
    end if;

    insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)
    select job, new.version, new.event_id, new.type, new.schema_version, new.recorded_at, new.data, new.hash
    from json_to_recordset(item_events) as new (
        version bigint, event_id uuid, type text, schema_version integer, recorded_at timestamptz, data json, hash text
    );

    update jobs set
        version = new_head.version,
        hash = new_head.hash,
        recorded_at = new_head.recorded_at,
        claim_id = case when (item ->> 'release')::boolean then null else jobs.claim_id end,
        worker_id = case when (item ->> 'release')::boolean then null else jobs.worker_id end,
        workflow = new_head.workflow,
        status = new_head.status,
        created_at = new_head.created_at,
        updated_at = new_head.updated_at,
        mode = new_head.mode,
        phase = new_head.phase,
        last_error = new_head.last_error,
        failed_sub_step = new_head.failed_sub_step,
        wake_at = new_head.wake_at,
        ended_at = new_head.ended_at,
        done = new_head.done,
        total = new_head.total,
        key = new_head.key,
        tags = new_head.tags,
        priority = new_head.priority,
        batch_id = new_head.batch_id
    where jobs.job_id = job;

    return query select 'stored', new_head.version;
end
$$;

revoke execute on function append_one (uuid, json, json) from public;

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant execute on function append_one (uuid, json, json) to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant execute on function append_one (uuid, json, json) to steplog_admin;
    end if;
end
$$;
