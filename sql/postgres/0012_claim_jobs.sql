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
            perform append_to_head(item.claim);
            answer := json_build_array(item.job_id, 'stored', item.claim -> 'head' -> 'version');
        else
            select json_build_array(item.job_id, refused.code, refused.version) into answer from refusal(
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
        'look_for_work (text[], integer, uuid[], bigint[], jsonb, text)', 'claim_jobs (text, json)'
    ] loop
        execute format('revoke execute on function %s from public', signature);
        foreach steplog_role in array array['steplog_app', 'steplog_admin'] loop
            if exists (select from pg_catalog.pg_roles where rolname = steplog_role) then
                execute format('grant execute on function %s to %I', signature, steplog_role);
            end if;
        end loop;
    end loop;
end
$$;
