-- An instant in the one text form of the log: RFC 3339 UTC, six decimals. No search path is pinned, so that the
-- planner can write it out in place; it names nothing outside of pg_catalog.

create function instant(at timestamptz) returns text
language sql stable
as $$
    select pg_catalog.to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
