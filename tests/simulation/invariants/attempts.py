"""Of the life of a sub-step: in order, behind what it needs, within its phase, called once for each start."""

from __future__ import annotations

from collections import Counter

from simulation.invariants.terms import SLACK_S, Broken
from simulation.moments import item_key
from simulation.notes import Call
from simulation.reading import SETTLED, Reading, attempt_of, group_of, key_of, phase_of

from steplog.eventstore.events import Event

_BEGINS = ("SubStepStarted", "SubStepWaiting", "SubStepExpanded")
_OF_NO_LIFE = ("ContextChanged", "JobParked", "JobFailed")


def a_sub_step_goes_through_its_life_in_order(told: Reading) -> Broken:
    attempts: Counter[str] = Counter()
    for place, event in enumerate(told.log):
        key = key_of(event)
        if event.type == "SubStepReset" and "items" not in event.data:
            attempts = Counter({each: count for each, count in attempts.items() if not _is_item_of(event, each)})
        if not key or event.type in _OF_NO_LIFE or event.type.startswith("Compensation"):
            continue
        generation = told.before[place].generation.get(key)
        if event.data["generation"] != generation and event.type != "LateOutcome":
            yield f"{event.type} at {event.version} is of generation {event.data['generation']} of {key}"
        status, attempt = told.before[place].status.get(key, "gone"), event.data.get("attempt")
        match event.type:
            case _ if told.sub_steps[key].fan_out is not None:
                fits = _fits_a_group(told, place, key, status)
            case "SubStepRetryScheduled" if told.is_by_hand(event):
                fits = status in ("failed", "retrying", "interrupted") and attempt == attempts[key] + 1
            case _ if told.is_by_hand(event):
                fits = status not in ("completed", "skipped")
            case "SubStepStarted":
                attempts[key] += 1
                fits = status in ("pending", "retrying", "interrupted") and attempt == attempts[key]
            case "SubStepWaiting":
                fits = told.sub_steps[key].wait is not None and status in ("pending", "retrying")
            case "SubStepCompleted" | "SubStepFailed" if told.sub_steps[key].wait:
                fits = status == "waiting" and attempt == attempts[key] + 1
            case "SubStepFailed" if event.data["error"]["type"] == "DeadlineExceeded":
                fits = status in ("in_progress", "retrying", "interrupted") and attempt == attempts[key]
            case "SubStepFailed" if status != "in_progress":
                by_condition = status == "pending" and event.data["error"]["type"] == "ZeroDivisionError"
                fits = by_condition or (status == "interrupted" and event.data["error"]["type"] == "Interrupted")
            case "SubStepRetryScheduled":
                before = told.log[place - 1]
                fits = before.type == "SubStepFailed" and key_of(before) == key and attempt == attempts[key] + 1
            case "SubStepSkipped" if event.data["cause"] != "raised":
                fits = status == "pending"
            case "LateOutcome":
                fits = (status, attempt) != ("in_progress", attempts[key])
            case _:
                fits = status == "in_progress" and attempt == attempts[key]
        if not fits:
            yield f"{event.type} of {key}#{attempt} at {event.version}, when it was {status}#{attempts[key]}"


def _is_item_of(reset: Event, key: str) -> bool:
    return key != group_of(key) and group_of(key) in reset.data["sub_steps"]


def _fits_a_group(told: Reading, place: int, key: str, status: str) -> bool:
    """What becomes of a fan-out as a whole: it has no attempts of its own."""
    event = told.log[place]
    match event.type:
        case "SubStepExpanded":
            return status == "pending" or (status == "expanded" and key not in told.before[place].listed)
        case "SubStepRetryScheduled":
            waits = {told.before[place].status[item] for item in told.before[place].items_of(key)}
            return told.is_by_hand(event) and (status == "failed" or bool(waits & {"retrying", "interrupted"}))
        case "SubStepCompleted" | "SubStepFailed" | "SubStepSkipped" if told.is_by_hand(event):
            return status not in ("completed", "skipped")
        case "SubStepCompleted":
            return status == "expanded"
        case "SubStepFailed":
            return status in ("pending", "expanded")
        case _:
            return event.type == "SubStepSkipped" and status == "pending"


def nothing_starts_before_what_it_needs(told: Reading) -> Broken:
    for place, event, key in told.each(*_BEGINS):
        step, status = told.sub_steps[key], told.before[place].status
        for edge in (*step.after, *step.defaults):
            if status[edge] not in SETTLED:
                yield f"{key} started at {event.version} and {edge} was {status[edge]}"
        for need in set(step.needs) - set(step.defaults):
            if status[need] != "completed":
                yield f"{key} started at {event.version} and {need}, which it needs, was {status[need]}"


def a_phase_is_a_barrier(told: Reading) -> Broken:
    order = [phase.name for phase in told.story.phases]
    started, ended = set[str](), set[str]()
    for place, event in enumerate(told.log):
        phase, status = event.data.get("phase", ""), told.before[place].status
        of_phase = {key: status[key] for key in told.sub_steps if phase_of(key) == phase}
        if event.type in ("PhaseStarted", *_BEGINS) and not ended.issuperset(order[: order.index(phase)]):
            yield f"{event.type} of {phase} at {event.version} after {sorted(ended)}"
        if event.type == "PhaseStarted":
            started.add(phase)
        elif event.type in _BEGINS and (phase in ended or phase not in started):
            yield f"{key_of(event)} started at {event.version} outside of its phase"
        elif event.type == "PhaseCompleted":
            failed = [key for key in told.critical_of(phase) if status[key] == "failed"]
            if failed or not set(of_phase.values()) <= SETTLED:
                yield f"phase {phase} completed with {of_phase}"
            ended.add(phase)
        elif event.type == "PhaseFailed" and not set(of_phase.values()) <= _may_be_left(told, place):
            yield f"phase {phase} failed with {of_phase}"
        elif event.type == "SubStepReset":
            ended -= {phase_of(key) for key in event.data["sub_steps"]}


def _may_be_left(told: Reading, place: int) -> frozenset[str]:
    """What sub-steps may be when their phase fails: more where the job has had its time."""
    deadline, event = told.before[place].job_deadline, told.log[place]
    is_late = deadline is not None and told.seconds(event) >= deadline - SLACK_S
    return SETTLED | {"pending", "waiting", "expanded", *(("retrying", "interrupted") if is_late else ())}


def no_more_run_at_once_than_the_phase_allows(told: Reading) -> Broken:
    limits = {phase.name: phase.parallel for phase in told.story.phases}
    for place, event, key in told.each("SubStepStarted"):
        phase = phase_of(key)
        running = [of for of, status in told.before[place].status.items() if status == "in_progress"]
        limit, fan_out = limits[phase], told.sub_steps[group_of(key)].fan_out
        if limit is not None and len(running) >= limit:
            yield f"{key} started at {event.version} beside {running}"
        if fan_out is not None and sum(group_of(of) == group_of(key) for of in running) >= fan_out.parallel:
            yield f"{key} started at {event.version} beside {running}, and {fan_out.parallel} items may run at once"


def started_is_durable_before_the_handler_is_called_once(told: Reading) -> Broken:
    started = {attempt_of(event): event for _, event, _ in told.each("SubStepStarted")}
    for (key, generation, attempt), calls in told.calls.items():
        start = started.get((key, generation, attempt))
        if len(calls) > 1:
            yield f"{key}#{attempt} was called {len(calls)} times"
        if start is None or start.version > calls[0].version:
            yield f"{key}#{attempt} was called at version {calls[0].version}, started at {start and start.version}"
        elif start.data["idempotency_key"] != calls[0].idempotency_key:
            yield f"{key}#{attempt} was called with another idempotency key"


def a_life_has_one_idempotency_key_of_its_own(told: Reading) -> Broken:
    """From reset to reset; a compensation has one of its own, too."""
    keys: dict[tuple[str, tuple[int, int]], set[str]] = {}
    resets: Counter[str] = Counter()
    for _, event, key in told.each("SubStepStarted", "CompensationStarted", "SubStepReset"):
        if event.type == "SubStepReset":
            resets.update(_reset_by(event))
            continue
        what = key if event.type == "SubStepStarted" else f"{key}, undone"
        life = resets[group_of(key)], resets[key]
        keys.setdefault((what, life), set()).add(event.data["idempotency_key"])
    if any(len(of) > 1 for of in keys.values()) or len(set().union(*keys.values())) < len(keys):
        yield f"idempotency keys: {keys}"


def _reset_by(event: Event) -> list[str]:
    if "items" not in event.data:
        return list(event.data["sub_steps"])
    return [item_key(event.data["sub_steps"][0], item) for item in event.data["items"]]


def a_handler_that_still_runs_is_not_called_again(told: Reading) -> Broken:
    running: dict[tuple[int, str], Call] = {}
    for call in told.notes.calls:
        before = running.get((call.process, call.key))
        if before is not None and (before.ended_at is None or before.ended_at > call.at):
            yield f"{call.key}#{call.attempt} was called while #{before.attempt} ran"
        running[call.process, call.key] = call
