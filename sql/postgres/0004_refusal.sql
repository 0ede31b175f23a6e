-- What an append is answered that does not go right behind its job's head.

-- Whether exactly these events already stand behind version `after` of the job: the append was applied, and only its
-- answer got lost.
create function stored_before(job uuid, after bigint, event_ids uuid[]) returns boolean
language sql stable
set search_path from current
set enable_seqscan = off
as $$
    select coalesce(array_agg(stored.event_id order by stored.version) = event_ids, false)
    from events as stored
    where stored.job_id = job
      and stored.version > after
      and stored.version <= after + cardinality(event_ids)
$$;

-- The caller has tried to lock the head in a statement before. This one has a snapshot of its own, taken after that: a
-- retry that raced its own orphan sees here what the orphan stored.
create function refusal(
    job uuid, is_locked boolean, expected_version bigint, expected_hash text, of_epoch bigint, of_claim text,
    new_events json, out code text, out version bigint
)
language plpgsql volatile
set search_path from current
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    event_ids uuid[] := array(select (event ->> 'event_id')::uuid from json_array_elements(new_events) as event);
    head record;
begin
    select jobs.version, jobs.hash, jobs.epoch, jobs.claim_id into head from jobs where jobs.job_id = job;
    version := coalesce(head.version, 0);
    code := case
        when head.version is null then 'missing'
        when not is_locked then 'busy'
        when head.version > expected_version and stored_before(job, expected_version, event_ids) then 'stored'
        when head.version < expected_version then 'regressed'
        when expected_version > 0 and expected_hash <> case
            when head.version = expected_version then head.hash
            else coalesce((
                select events.hash from events where events.job_id = job and events.version = expected_version
            ), '')
        end then 'regressed'
        when head.epoch <> of_epoch or head.claim_id is distinct from of_claim then 'fenced'
        else 'conflict'
    end;
end
$$;
