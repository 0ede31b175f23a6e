-- The owner's append: next events of many jobs in one call, each job whole or not at all, answered by codes.
--
-- Separate statements, each with a snapshot of its own: as one statement, a retry racing its own orphan would not see
-- what the orphan stored and report a false conflict. Plans are pinned: one cached while the tables were empty must
-- not scan them when they are full. The events come in a document of their own, each with its item's place: nested in
-- the items they would be parsed once more.

create type append_item as (
    place            integer,
    job_id           uuid,
    expected_version bigint,
    expected_hash    text,
    epoch            bigint,
    claim_id         text,
    release          boolean,
    head             json,
    event_ids        uuid[],
    code             text,
    head_version     bigint
);

create function append(batch json, batch_events json) returns table (place integer, job_id uuid, code text, version bigint)
language plpgsql volatile
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_mergejoin = off
set enable_nestloop = off
set jit = off
as $$
#variable_conflict use_column
declare
    items append_item[] := array(select item from json_populate_recordset(null::append_item, batch) as item);
    wanted uuid[] := array(select item.job_id from unnest(items) as item);
    locked uuid[];
    accepted uuid[];
begin
    -- Heads that somebody else holds are skipped, not waited for: one stopped transaction must not hold up the batch.
    -- The lock is a write of its own, so even a batch that was stored before ends in a commit that is flushed and
    -- replicated after the one that stored it.
    locked := array(
        select jobs.job_id from jobs
        where jobs.job_id = any (wanted)
        order by jobs.job_id
        for no key update skip locked
    );

    items := array(
        select row(
            item.place, item.job_id, item.expected_version, item.expected_hash, item.epoch, item.claim_id,
            item.release, item.head, item.event_ids,
            case
                when head.version is null then 'missing'
                when item.job_id <> all (locked) then 'busy'
                when head.version > item.expected_version
                    and stored_before(item.job_id, item.expected_version, item.event_ids) then 'stored before'
                when head.version < item.expected_version then 'regressed'
                when item.expected_version > 0 and item.expected_hash <> case
                    when head.version = item.expected_version then head.hash
                    else coalesce((
                        select events.hash from events
                        where events.job_id = item.job_id and events.version = item.expected_version
                    ), '')
                end then 'regressed'
                when head.epoch <> item.epoch or head.claim_id is distinct from item.claim_id then 'fenced'
                when head.version > item.expected_version then 'conflict'
                else 'accepted'
            end,
            coalesce(head.version, 0)
        )::append_item
        from unnest(items) as item
        left join lateral (
            select jobs.version, jobs.hash, jobs.epoch, jobs.claim_id from jobs
            where jobs.job_id = item.job_id
            limit 1
        ) as head on true
    );
    accepted := array(select item.job_id from unnest(items) as item where item.code = 'accepted');

    insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)
    select item.job_id, new.version, new.event_id, new.type, new.schema_version, new.recorded_at, new.data, new.hash
    from json_to_recordset(batch_events) as new (
        place integer, version bigint, event_id uuid, type text, schema_version integer, recorded_at timestamptz,
        data json, hash text
    )
    join unnest(items) as item on item.place = new.place
    where item.code = 'accepted';

    update jobs set
        version = head.version,
        hash = head.hash,
        recorded_at = head.recorded_at,
        claim_id = case when item.release then null else jobs.claim_id end,
        worker_id = case when item.release then null else jobs.worker_id end,
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
    from unnest(items) as item
    cross join lateral json_populate_record(null::jobs, item.head) as head
    where jobs.job_id = any (accepted)
      and item.job_id = jobs.job_id;

    return query
        select
            item.place,
            item.job_id,
            case when item.code in ('accepted', 'stored before') then 'stored' else item.code end,
            case when item.code = 'accepted' then (item.head ->> 'version')::bigint else item.head_version end
        from unnest(items) as item
        order by item.place;
end
$$;
