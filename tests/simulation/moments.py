"""What a log says up to some event, as an outsider understands each event: no rule of the engine is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from simulation.story import Story, SubStepStory

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event

SETTLED = frozenset({"completed", "failed", "skipped"})

_STATUS_AFTER = {
    "SubStepStarted": "in_progress",
    "SubStepWaiting": "waiting",
    "SubStepCompleted": "completed",
    "SubStepFailed": "failed",
    "SubStepRetryScheduled": "retrying",
    "SubStepSkipped": "skipped",
    "SubStepInterrupted": "interrupted",
}

_ENDS_A_WAIT = ("SubStepCompleted", "SubStepFailed")


@dataclass(frozen=True, slots=True)
class Moment:
    """What the log says up to some event; each part is shared with its neighbours until it changes.

    An item of a fan-out is there from the event on that lists it until its group is reset, as `phase/name[item]`; a
    group with items is `expanded` as long as it has not settled.
    """

    status: dict[str, str]
    generation: dict[str, int]
    failures: dict[str, int]
    """Those that count: since a person gave the sub-step another chance."""
    deaths: dict[str, int]
    """Interruptions by an owner's death, since a person gave the sub-step another chance."""
    context: dict[str, Any]
    writers: dict[str, dict[str, int]]
    """By field, the version at which each writer ("" is a person) last wrote it."""
    signals: dict[str, list[Event]]
    """By name, those that nothing has taken, the oldest first."""
    deadline: dict[str, float]
    """By sub-step that has begun and has one, in seconds since the log began."""
    job_deadline: float | None
    input: dict[str, Any]
    items: dict[str, tuple[str, ...]]
    """By fan-out, what it lists, in order."""
    list_of: dict[str, str]
    """By fan-out, the list that its items are of."""
    listed: frozenset[str]
    """Fan-outs whose items are all known."""
    failed_phase: str = ""
    is_undone: bool = False
    """Whether the job is being undone, or has been."""

    def last_writer(self, field: str) -> tuple[str, int]:
        """Who wrote the field last, and at which version."""
        return max(self.writers.get(field, {}).items(), key=lambda each: each[1], default=("", 0))

    def deadline_of(self, key: str) -> float:
        """When the sub-step, or the item's group, will have had its time; a time that never comes where it has all."""
        return self.deadline.get(group_of(key), 1e9)

    def items_of(self, group: str) -> list[str]:
        """Keys of the items that the fan-out lists, in order."""
        return [item_key(group, item) for item in self.items.get(group, ())]


class Unfolding:
    """From moment to moment."""

    def __init__(self, story: Story, first: Event, by_hand: Collection[str]) -> None:
        self._story = story
        self._first = first
        self._by_hand = by_hand
        self._sub_steps: dict[str, SubStepStory] = dict(story.sub_steps())

    def beginning(self) -> Moment:
        """Before anything happened."""
        zeros = dict.fromkeys(self._sub_steps, 0)
        return Moment(
            status=dict.fromkeys(self._sub_steps, "pending"),
            generation=dict.fromkeys(self._sub_steps, 1),
            failures=zeros,
            deaths=zeros,
            context=dict(self._first.data["context"]),
            writers={},
            signals={},
            deadline={},
            job_deadline=self._story.deadline_s,
            input=self._first.data["input"],
            items={},
            list_of={},
            listed=frozenset(),
        )

    def after(self, now: Moment, event: Event) -> Moment:
        """The moment after the event."""
        key, kind, data = key_of(event), event.type, event.data
        if kind == "SubStepRetryScheduled" and key in now.listed:
            return self._group_again(now, [key], event)
        if key and kind in _STATUS_AFTER:
            now = replace(now, status={**now.status, key: _STATUS_AFTER[kind]})
            if now.status[key] in SETTLED and key in now.items:
                now = _with_items_stopped(now, key)
        if kind in _ENDS_A_WAIT and self._is_wait(event):
            now = self._with_signal_taken(now, key)
        match kind:
            case "SubStepStarted":
                return self._with_deadline(now, event)
            case "SubStepExpanded":
                return self._with_deadline(_expanded(now, event), event)
            case "SignalReceived":
                sent = [*now.signals.get(data["name"], ()), event]
                return replace(now, signals={**now.signals, data["name"]: sent})
            case "InputChanged":
                return replace(now, input=data["input"])
            case "JobReopened":
                return replace(now, job_deadline=self._deadline_from(event))
            case "ContextChanged":
                written = {**data["set"], **dict.fromkeys(data["unset"])}
                writers = {field: {**now.writers.get(field, {}), key: event.version} for field in written}
                return replace(now, context=_changed(now.context, data), writers={**now.writers, **writers})
            case "SubStepFailed":
                return replace(now, failures={**now.failures, key: now.failures[key] + 1})
            case "SubStepInterrupted" if data["cause"] == "owner died":
                return replace(now, deaths={**now.deaths, key: now.deaths[key] + 1})
            case "SubStepRetryScheduled" if event.event_id in self._by_hand:
                return _with_new_budget(now, [key])
            case "PhaseFailed":
                return replace(now, failed_phase=data["phase"])
            case "CompensationStarted":
                return replace(now, is_undone=True)
            case "JobResumed" if now.is_undone:
                return replace(now, job_deadline=self._deadline_from(event))
            case "JobResumed":
                return self._resumed(now, event)
            case "SubStepReset":
                return self._items_reset(now, event) if "items" in data else _reset(now, data)
            case _:
                return now

    def seconds(self, instant: str) -> float:
        """That instant in seconds of the loop."""
        return seconds_between(self._first.recorded_at, instant)

    def _with_deadline(self, now: Moment, event: Event) -> Moment:
        """It counts from the first start of the sub-step, or from the listing of the first items."""
        key = key_of(event)
        return now if key in now.deadline else self._with_its_time_again(now, [key], event)

    def _with_its_time_again(self, now: Moment, keys: Iterable[str], event: Event) -> Moment:
        allowed = {key: self._sub_steps[key].deadline_s for key in keys if key in self._sub_steps}
        anew = {key: self.seconds(event.recorded_at) + seconds for key, seconds in allowed.items() if seconds}
        return replace(now, deadline=now.deadline | anew)

    def _is_wait(self, event: Event) -> bool:
        return self._sub_steps[group_of(key_of(event))].wait is not None and event.event_id not in self._by_hand

    def _with_signal_taken(self, now: Moment, key: str) -> Moment:
        wait = self._sub_steps[key].wait
        name = (wait and wait.signal) or ""
        return replace(now, signals={**now.signals, name: now.signals.get(name, [])[1:]})

    def _deadline_from(self, event: Event) -> float | None:
        return None if self._story.deadline_s is None else self.seconds(event.recorded_at) + self._story.deadline_s

    def _resumed(self, now: Moment, event: Event) -> Moment:
        """A person has had the job: deadlines of what has begun count anew, and other counts too."""
        begun = [key for key, status in now.status.items() if status in ("retrying", "interrupted", "expanded")]
        again = [
            key
            for key, step in self._sub_steps.items()
            if now.status[key] == "failed" and phase_of(key) == now.failed_phase and not step.optional
        ]
        now = self._with_its_time_again(replace(now, deaths=dict.fromkeys(now.deaths, 0)), begun, event)
        now = _with_new_budget(now, again)
        now = self._group_again(now, [key for key in again if key in now.listed], event)
        return replace(
            now,
            status={**now.status, **{key: "pending" for key in again if key not in now.listed}},
            job_deadline=self._deadline_from(event),
            failed_phase="",
        )

    def _group_again(self, now: Moment, groups: Collection[str], event: Event) -> Moment:
        """What failed of the items, and what waits to run again, runs again with a new budget."""
        for group in groups:
            items = now.items_of(group)
            failed = [item for item in items if now.status[item] == "failed"]
            waits = [item for item in items if now.status[item] in ("retrying", "interrupted")]
            now = replace(now, status={**now.status, group: "expanded", **dict.fromkeys(failed, "pending")})
            now = _with_new_budget(now, [group, *failed, *waits])
        return self._with_its_time_again(now, groups, event)

    def _items_reset(self, now: Moment, event: Event) -> Moment:
        """Single items begin a new life; their group goes on."""
        (group,) = event.data["sub_steps"]
        keys = [item_key(group, item) for item in event.data["items"]]
        now = self._with_its_time_again(_with_new_budget(now, [group, *keys]), [group], event)
        return replace(
            now,
            status={**now.status, group: "expanded", **dict.fromkeys(keys, "pending")},
            generation={**now.generation, **{key: now.generation[key] + 1 for key in keys}},
            failed_phase="" if now.failed_phase == phase_of(group) else now.failed_phase,
            writers=_writers_but(now, keys),
        )


def _expanded(now: Moment, event: Event) -> Moment:
    """The items of the event are there; those of another list, of which it is none, are gone."""
    group, data = key_of(event), event.data
    if now.list_of.get(group, data["group"]) != data["group"]:
        now = _without_items(now, [group])
    added = [item["key"] for item in data["items"]]
    keys = [item_key(group, item) for item in added]
    zeros = dict.fromkeys(keys, 0)
    return replace(
        now,
        status={**now.status, group: "expanded", **dict.fromkeys(keys, "pending")},
        generation={**now.generation, **dict.fromkeys(keys, now.generation[group])},
        failures={**now.failures, **zeros},
        deaths={**now.deaths, **zeros},
        items={**now.items, group: (*now.items.get(group, ()), *added)},
        list_of={**now.list_of, group: data["group"]},
        listed=now.listed | {group} if data["last"] else now.listed,
    )


def _with_items_stopped(now: Moment, group: str) -> Moment:
    running = [item for item in now.items_of(group) if now.status[item] == "in_progress"]
    return replace(now, status={**now.status, **dict.fromkeys(running, "interrupted")})


def _with_new_budget(now: Moment, keys: Collection[str]) -> Moment:
    return replace(
        now,
        failures={**now.failures, **dict.fromkeys(keys, 0)},
        deaths={**now.deaths, **dict.fromkeys(keys, 0)},
        deadline=_without(now.deadline, keys),
    )


def _without_items(now: Moment, groups: Iterable[str]) -> Moment:
    def left(of: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in of.items() if key not in gone}

    groups = set(groups)
    gone = {item for group in groups for item in now.items_of(group)}
    if not now.items.keys() & groups:
        return now
    return replace(
        now,
        status=left(now.status),
        generation=left(now.generation),
        failures=left(now.failures),
        deaths=left(now.deaths),
        items={group: items for group, items in now.items.items() if group not in groups},
        list_of={group: of for group, of in now.list_of.items() if group not in groups},
        listed=now.listed.difference(groups),
    )


def _reset(now: Moment, data: dict[str, Any]) -> Moment:
    keys = data["sub_steps"]
    lives = {key: max(now.generation[part] for part in (key, *now.items_of(key))) for key in keys}
    now = _with_new_budget(_without_items(now, keys), keys)
    return replace(
        now,
        status={**now.status, **dict.fromkeys(keys, "pending")},
        generation={**now.generation, **{key: life + 1 for key, life in lives.items()}},
        failed_phase="" if now.failed_phase in map(phase_of, keys) else now.failed_phase,
        context=_changed(now.context, data),
        writers=_writers_but(now, {writer for of in now.writers.values() for writer in of if group_of(writer) in keys}),
    )


def _writers_but(now: Moment, gone: Collection[str]) -> dict[str, dict[str, int]]:
    return {
        field: {writer: version for writer, version in of.items() if writer not in gone}
        for field, of in now.writers.items()
    }


def _without(deadlines: dict[str, float], keys: Collection[str]) -> dict[str, float]:
    return {key: at for key, at in deadlines.items() if key not in keys}


def _changed(context: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    changed = {**context, **data["set"]}
    return {field: value for field, value in changed.items() if field not in data["unset"]}


# --- keys ------------------------------------------------------------------------------------------------------------


def key_of(event: Event) -> str:
    """The sub-step, or the item, that the event is about, "" for none."""
    if "sub_step" not in event.data:
        return ""
    group = f"{event.data['phase']}/{event.data['sub_step']}"
    return item_key(group, event.data["item"]) if "item" in event.data else group


def item_key(group: str, item: str) -> str:
    return f"{group}[{item}]"


def group_of(key: str) -> str:
    """The sub-step that it is an item of, or that it is."""
    return key.partition("[")[0]


def phase_of(key: str) -> str:
    return key.partition("/")[0]
