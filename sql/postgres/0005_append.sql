-- The owner's append: next events of many jobs in one call, each job whole or not at all, answered by codes. What
-- belongs to one job stands at the same place of each list; an event names that place, from 1.
--
-- Separate statements, each with a snapshot of its own: as one statement, a retry racing its own orphan would not see
-- what the orphan stored and report a false conflict. Plans are pinned: one cached while the tables were empty must
-- not scan them when they are full. Heads and events are documents of their own, taken apart only where they are
-- stored.

create function append(
    job_ids uuid[], expected_versions bigint[], expected_hashes text[], epochs bigint[], claim_ids text[],
    releases boolean[], heads json, new_events json
) returns table (job_id uuid, code text, version bigint)
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
    locked boolean[];
    accepted boolean[];
begin
    -- Heads that somebody else holds are skipped, not waited for: one stopped transaction must not hold up the batch.
    -- The lock is a write of its own, so even a batch that was stored before ends in a commit that is flushed and
    -- replicated after the one that stored it. A head is read as it is once it is locked.
    select
        array_agg(head.job_id is not null order by item.place),
        array_agg(
            coalesce(
                (head.version, head.hash, head.epoch, head.claim_id)
                = (item.expected_version, item.expected_hash, item.epoch, item.claim_id),
                false
            )
            order by item.place
        )
    into locked, accepted
    from unnest(job_ids, expected_versions, expected_hashes, epochs, claim_ids) with ordinality
        as item (job_id, expected_version, expected_hash, epoch, claim_id, place)
    left join (
        select jobs.job_id, jobs.version, jobs.hash, jobs.epoch, jobs.claim_id from jobs
        where jobs.job_id = any (job_ids)
        order by jobs.job_id
        for no key update skip locked
    ) as head on head.job_id = item.job_id;

    for place in 1 .. cardinality(job_ids) loop
        continue when accepted[place];
        return query select job_ids[place], refused.code, refused.version from refusal(
            job_ids[place], locked[place], expected_versions[place], expected_hashes[place], epochs[place],
            claim_ids[place], (
                select json_agg(event) from json_array_elements(new_events) as event
                where (event ->> 'place')::integer = place
            )
        ) as refused;
    end loop;

    insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)
    select
        job_ids[new.place], new.version, new.event_id, new.type, new.schema_version, new.recorded_at, new.data, new.hash
    from json_to_recordset(new_events) as new (
        place integer, version bigint, event_id uuid, type text, schema_version integer, recorded_at timestamptz,
        data json, hash text
    )
    where accepted[new.place];

    return query update jobs set
        version = head.version,
        hash = head.hash,
        recorded_at = head.recorded_at,
        claim_id = case when releases[head.ordinality] then null else jobs.claim_id end,
        worker_id = case when releases[head.ordinality] then null else jobs.worker_id end,
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
    from json_populate_recordset(null::jobs, heads) with ordinality as head
    where jobs.job_id = any (job_ids)
      and jobs.job_id = job_ids[head.ordinality]
      and accepted[head.ordinality]
    returning jobs.job_id, 'stored', jobs.version;
end
$$;
