-- Events are facts: no statement changes or removes one, whatever the role.

create function refuse_change() returns trigger
language plpgsql
set search_path from current
as $$
begin
    raise exception using
        errcode = 'restrict_violation',
        message = format('events are append-only: %s refused', lower(tg_op));
end
$$;

create trigger events_are_append_only before update or delete on events
    for each statement execute function refuse_change();

create trigger events_are_not_truncated before truncate on events
    for each statement execute function refuse_change();
