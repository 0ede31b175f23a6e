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
