-- Limits across the fleet: as many rows a limit as it has slots. A slot of a concurrency limit is held while its job has
-- an owner, whoever that is; one of a rate is used up for a while. So nothing has to be given back.

create table slots (
    limit_name text        not null collate "C",
    slot       integer     not null,
    job_id     uuid,
    taken_at   timestamptz,
    primary key (limit_name, slot)
) with (fillfactor = 50);

-- A slot for the job, if one is free: the caller holds the lock of the job's head. A slot that looks free is locked
-- and looked at again by a statement of its own, which sees what was committed meanwhile.
create function take_slot(wanted text, slots_max integer, period_s double precision, job uuid) returns boolean
language plpgsql volatile
set search_path from current
set enable_seqscan = off
as $$
declare
    candidate integer;
begin
    if (select count(*) from slots where slots.limit_name = wanted and slots.slot < slots_max) < slots_max then
        insert into slots (limit_name, slot) select wanted, generate_series(0, slots_max - 1) on conflict do nothing;
    end if;
    for candidate in
        select slots.slot from slots
        where slots.limit_name = wanted and slots.slot < slots_max and not slot_is_held(slots, period_s, job)
        order by slots.job_id is not distinct from job desc, slots.slot
    loop
        perform from slots where slots.limit_name = wanted and slots.slot = candidate for update skip locked;
        continue when not found;
        update slots set job_id = job, taken_at = clock_timestamp()
        where slots.limit_name = wanted and slots.slot = candidate and not slot_is_held(slots, period_s, job);
        if found then
            return true;
        end if;
    end loop;
    return false;
end
$$;

create function slot_is_held(slot slots, period_s double precision, job uuid) returns boolean
language sql volatile
set search_path from current
as $$
    select case
        when slot.job_id is null then false
        when period_s is not null then slot.taken_at > clock_timestamp() - make_interval(secs => period_s)
        when slot.job_id = job then false
        else exists (select from jobs where jobs.job_id = slot.job_id and jobs.worker_id is not null)
    end
$$;

-- One worker becomes the owner of many jobs nobody owns: each claimed whole or not at all, answered by codes; null
-- where the worker is no longer alive. A head that somebody else holds is not waited for: he is claiming it.

create function claim_jobs(claimant text, claims json) returns json
language plpgsql volatile
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    item record;
    head record;
    wanted record;
    used_up text;
    answer json;
    answers json[] := '{}';
begin
    if not exists (select from workers where workers.worker_id = claimant and workers.state = 'alive') then
        return null;
    end if;
    for item in
        select
            claim, (claim -> 'head' ->> 'job_id')::uuid as job_id, (claim ->> 'expected_version')::bigint as version,
            claim ->> 'expected_hash' as hash
        from json_array_elements(claims) as claim
        order by 2
    loop
        -- A head is read as it is once it is locked, also where it was changed after the statement began.
        select jobs.version, jobs.hash, jobs.worker_id into head from jobs
        where jobs.job_id = item.job_id
        for no key update skip locked;

        if (head.version, head.hash) = (item.version, item.hash) and head.worker_id is null then
            used_up := null;
            for wanted in
                select slot ->> 'name' as name, (slot ->> 'slots')::integer as slots_max,
                    (slot ->> 'period_s')::double precision as period_s
                from json_array_elements(item.claim -> 'slots') as slot
            loop
                if used_up is null and not take_slot(wanted.name, wanted.slots_max, wanted.period_s, item.job_id) then
                    used_up := wanted.name;
                end if;
            end loop;
            if used_up is null then
                perform append_to_head(item.claim);
                answer := json_build_array(item.job_id, 'stored', item.claim -> 'head' -> 'version', null);
            else
                answer := json_build_array(item.job_id, 'limited', item.version, used_up);
            end if;
        else
            select json_build_array(item.job_id, refused.code, refused.version, null) into answer from refusal(
                item.job_id, head.version is not null, item.version, item.hash,
                (item.claim -> 'head' ->> 'epoch')::bigint, item.claim -> 'head' ->> 'claim_id', item.claim -> 'events'
            ) as refused;
        end if;
        answers := answers || answer;
    end loop;
    return array_to_json(answers);
end
$$;

do $$
declare
    signature text;
    steplog_role text;
begin
    foreach signature in array array[
        'take_slot (text, integer, double precision, uuid)', 'slot_is_held (slots, double precision, uuid)',
        'claim_jobs (text, json)'
    ] loop
        execute format('revoke execute on function %s from public', signature);
        foreach steplog_role in array array['steplog_app', 'steplog_admin'] loop
            if exists (select from pg_catalog.pg_roles where rolname = steplog_role) then
                execute format('grant execute on function %s to %I', signature, steplog_role);
            end if;
        end loop;
    end loop;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_reader') then
        grant select on slots to steplog_reader;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant select, insert, update on slots to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant select, insert, update, delete on slots to steplog_admin;
    end if;
end
$$;
