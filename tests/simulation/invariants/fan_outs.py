"""Of fan-outs: what they list, in which order items begin, and when and how the group settles."""

from __future__ import annotations

from simulation.invariants.terms import SLACK_S, Broken
from simulation.reading import SETTLED, Reading, group_of

from steplog.eventstore.events import Event


def items_are_what_the_code_listed_each_once(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepExpanded"):
        items = told.after(place).items[key]
        process = told.writer_of.get(event.event_id)
        listed = [
            each.items
            for each in told.notes.listed
            if (each.process, each.key) == (process, key) and each.version < event.version
        ]
        if len(set(items)) < len(items):
            yield f"{key} lists an item twice at {event.version}: {items}"
        if not listed or (list(items) != listed[-1] if event.data["last"] else listed[-1][: len(items)] != list(items)):
            yield f"{key} has {items} at {event.version}, its code listed {listed[-1:]}"


def items_begin_in_their_order(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepStarted"):
        before, group = told.before[place], group_of(key)
        if key == group:
            continue
        items = before.items_of(group)
        if group not in before.listed:
            yield f"{key} started at {event.version}, before all items of {group} were known"
        earlier = [item for item in items[: items.index(key)] if before.status[item] == "pending"]
        if before.status[key] == "pending" and earlier:
            yield f"{key} started at {event.version} before {earlier}"


def an_item_that_failed_for_good_lets_no_other_begin(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepStarted"):
        before, group = told.before[place], group_of(key)
        if key == group or told.sub_steps[group].optional or before.status[key] != "pending":
            continue
        failed = [item for item in before.items_of(group) if before.status[item] == "failed"]
        if failed:
            yield f"{key} began at {event.version}, when {failed} had failed"


def a_group_settles_with_its_items(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepCompleted", "SubStepFailed"):
        if told.sub_steps[key].fan_out is None or told.is_by_hand(event):
            continue
        before = told.before[place]
        of_items = [before.status[item] for item in before.items_of(key)]
        if event.type == "SubStepCompleted":
            fits = key in before.listed and set(of_items) <= {"completed", "skipped"}
        else:
            fits = _failed_so(told, place, event, key, of_items)
        if not fits:
            yield f"{event.type} of {key} at {event.version} with {event.data}, when its items were {of_items}"


def _failed_so(told: Reading, place: int, event: Event, key: str, of_items: list[str]) -> bool:
    before, step = told.before[place], told.sub_steps[key]
    listed = step.fan_out.listed if step.fan_out else ""
    match event.data["error"]["type"]:
        case "ItemsFailed":
            may_be = SETTLED if step.optional else SETTLED | {"pending"}
            said = event.data["error"]["message"].startswith(f"{of_items.count('failed')} of {len(of_items)} ")
            return "failed" in of_items and set(of_items) <= may_be and said
        case "DeadlineExceeded":
            return told.seconds(event) >= before.deadline_of(key) - SLACK_S
        case "ItemsRefused":
            return listed == "twice" and not of_items
        case "ZeroDivisionError":
            return step.when == "raises" or (listed == "raises" and not of_items)
        case _:
            return False


def a_group_settles_as_soon_as_its_items_have(told: Reading) -> Broken:
    """In the append that settles its last item, so that nothing ever waits for it."""
    for place, event, key in told.each("SubStepStarted", "JobReleased", "PhaseCompleted"):
        before = told.before[place]
        if event.data.get("reason") == "handed back":
            continue
        for group in before.listed:
            items = {before.status[item] for item in before.items_of(group)}
            if before.status[group] == "expanded" and items <= {"completed", "skipped"} and key != group:
                yield f"{event.type} at {event.version}, and {group} has not settled with its items"
