-- Whether exactly these events already stand behind version `after` of the job: the append was applied, and only its
-- answer got lost.

create function stored_before(job uuid, after bigint, new_events json) returns boolean
language sql stable
set search_path from current
set enable_seqscan = off
as $$
    select json_array_length(new_events) > 0 and coalesce(
        array_agg(stored.event_id order by stored.version)
            = array(
                select (new.value ->> 'event_id')::uuid
                from json_array_elements(new_events) with ordinality as new (value, place)
                order by new.place
            ),
        false
    )
    from events as stored
    where stored.job_id = job
      and stored.version > after
      and stored.version <= after + json_array_length(new_events)
$$;
