-- Many new jobs, each as by create_job, in one call. In the order of their keys, so that callers with the same ones
-- wait for each other in turn and not in a circle.

create function create_jobs(documents json) returns table (place bigint, code text, job_id uuid)
language plpgsql volatile
set search_path from current
as $$
declare
    new record;
begin
    for new in
        select element.document, element.place
        from json_array_elements(documents) with ordinality as element (document, place)
        order by
            element.document -> 'head' ->> 'workflow' collate "C",
            element.document -> 'head' ->> 'key' collate "C",
            element.place
    loop
        return query select new.place, made.code, made.job_id from create_job(new.document) as made;
    end loop;
end
$$;

revoke execute on function create_jobs (json) from public;

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_app') then
        grant execute on function create_jobs (json) to steplog_app;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'steplog_admin') then
        grant execute on function create_jobs (json) to steplog_admin;
    end if;
end
$$;
