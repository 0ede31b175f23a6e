"""One job as its page shows it: what is wrong first, then phases, the chosen sub-step, context, history.

Reads the store at most three times, whatever the job's length: its head, its state, its latest events. The whole
history is read for the page itself only of jobs that are short; of longer ones the picture comes when it is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steplog.api.jobs import LATEST_EVENTS, WHOLE_EVENTS_MAX
from steplog.api.pages.actions import Offer, offers
from steplog.api.pages.history import Tick, ticks
from steplog.api.service import Service
from steplog.engine.masking import without
from steplog.engine.ownership import is_gone
from steplog.eventstore.events import Event
from steplog.eventstore.store import Head, Look
from steplog.projections.diff import Change, changes
from steplog.projections.plan import Key, Shape, key_of, split_key
from steplog.projections.readiness import open_edges, unmet_needs
from steplog.projections.snapshot import snapshot
from steplog.projections.state import ENDED, STOPPED, State
from steplog.projections.timeline import SubStepLine, Timeline, timeline

CHANGES_MAX = 100
_COUNTED = frozenset({"version", "seconds", "idempotency_key", "cursor", "done"})
_TROUBLE = ("failed", "interrupted", "retrying", "in_progress", "waiting")
"""Which sub-steps are looked at first, where nobody chose one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the job is looked at."""

    version: int | None = None
    """As of that version; None is now."""
    sub_step: Key | None = None
    since: int | None = None
    """Show what changed since that version."""


@dataclass(frozen=True, slots=True)
class Row:
    """A sub-step in the tree."""

    key: Key
    name: str
    status: str
    shown: dict[str, Any]
    """Its part of the snapshot."""
    optional: bool
    budget: int
    waits_for: str


@dataclass(frozen=True, slots=True)
class PhaseRows:
    """A phase in the tree."""

    name: str
    status: str
    shown: dict[str, Any]
    rows: list[Row]
    done: int


@dataclass(frozen=True, slots=True)
class JobView:
    """Everything that the page's template looks at."""

    head: Head
    document: dict[str, Any]
    state: State
    now: str
    past: bool
    stalled: bool
    stalled_on: str
    phases: list[PhaseRows]
    chosen: Row | None
    line: SubStepLine | None
    events: list[dict[str, Any]]
    ticks: list[Tick]
    timeline: Timeline | None
    offers: list[Offer]
    step_offers: list[Offer]
    since: int | None
    differences: list[tuple[Change, str]] | None

    @property
    def end(self) -> str:
        """Where the job's time stands still."""
        stands = self.past or self.stalled or self.state["status"] in STOPPED
        return self.state["ended_at"] or (self.state["recorded_at"] if stands else self.now)

    @property
    def status(self) -> str:
        return "stalled" if self.stalled else str(self.state["status"])

    @property
    def moves(self) -> bool:
        """Whether the page follows the job."""
        return not self.past and self.state["status"] not in ENDED

    @property
    def troubles(self) -> list[Row]:
        """The sub-steps that failed for good, or whose failure stopped the job."""
        return [row for phase in self.phases for row in phase.rows if row.status in ("failed", "interrupted")]

    @property
    def begun(self) -> int:
        return sum(phase.status != "pending" for phase in self.phases)


def job_view(service: Service, look: Look, asked: Asked) -> JobView:
    """The job as of what was asked. Raises Problem for a version that it has not come to."""
    head, now = look.head, look.now
    jobs, version = service.jobs, asked.version or head.version
    past = asked.version is not None and asked.version != head.version
    state = jobs.at(head.job_id, version) if past else jobs.of_head(head)
    masks, secrets = jobs.masks(state["workflow"]), jobs.secrets(state)
    document = masks.snapshot(snapshot(state))
    history = _history(service, head)
    gone = look.owner if look.owner is not None and not past and is_gone(look.owner) else None
    stalled = gone is not None
    spans = _timeline(history, version, None if past else now, stalled=stalled, secrets=secrets)
    phases = _phases(state, document, stalled=stalled)
    chosen = _chosen(phases, asked.sub_step)
    return JobView(
        head=head,
        document=document,
        state=state,
        now=now,
        past=past,
        stalled=stalled,
        stalled_on=f"{gone.identity.host}, pid {gone.identity.pid}" if gone else "",
        phases=phases,
        chosen=chosen,
        line=_line(spans, chosen),
        events=_latest(jobs.shown_events(state["workflow"], history, secrets), version),
        ticks=ticks((event.version, event.type, event.data) for event in history),
        timeline=spans,
        offers=[] if past else offers(state),
        step_offers=[] if past or chosen is None else offers(state, chosen.key),
        since=asked.since,
        differences=_differences(service, head, document, asked),
    )


def _history(service: Service, head: Head) -> list[Event]:
    """All events of a short job, the latest of a long one."""
    latest = service.jobs.latest_events(head)
    if head.version > WHOLE_EVENTS_MAX or latest[0].version == 1:
        return latest
    return list(service.store.read(head.job_id, 0, head.version))


def _latest(shown: list[dict[str, Any]], version: int) -> list[dict[str, Any]]:
    """The latest up to that version, the latest first."""
    return [event for event in reversed(shown) if event["version"] <= version][:LATEST_EVENTS]


def _timeline(
    history: list[Event], version: int, now: str | None, *, stalled: bool, secrets: tuple[str, ...]
) -> Timeline | None:
    if not history or history[0].version != 1:
        return None
    found = timeline((event for event in history if event.version <= version), now, stalled=stalled)
    return without(found, secrets)  # type: ignore[no-any-return]  # the same shape, other texts


def _phases(state: State, document: dict[str, Any], *, stalled: bool) -> list[PhaseRows]:
    shape = Shape.of(state["plan"])
    found = []
    for name, phase in document["phases"].items():
        rows = [
            _row(state, shape, key_of(name, sub_step), shown, stalled=stalled)
            for sub_step, shown in phase["sub_steps"].items()
        ]
        done = sum(row.shown["status"] in ("completed", "skipped") for row in rows)
        found.append(PhaseRows(name, phase["status"], phase, rows, done))
    return found


def _row(state: State, shape: Shape, key: Key, shown: dict[str, Any], *, stalled: bool) -> Row:
    plan, status = shape.sub_steps[key], str(shown["status"])
    waits_for = ""
    if status == "pending":
        unmet = unmet_needs(state, shape, key)
        edges = unmet or open_edges(state, shape, key)
        names = [split_key(edge)[1] if split_key(edge)[0] == split_key(key)[0] else edge for edge in edges]
        waits_for = f"{'needs' if unmet else 'after'} {', '.join(names)}" if names else ""
        status = "waiting" if waits_for else status
    elif status == "failed" and plan["optional"]:
        status = "tolerated"
    elif status == "in_progress" and stalled:
        status = "interrupted"
    return Row(key, split_key(key)[1], status, shown, plan["optional"], plan["retry"]["attempts"], waits_for)


def _chosen(phases: list[PhaseRows], key: Key | None) -> Row | None:
    """The sub-step that was asked for, else one that is in trouble, else one that moves, else the last begun."""
    rows = [row for phase in phases for row in phase.rows]
    for row in rows:
        if row.key == key:
            return row
    for status in _TROUBLE:
        for row in rows:
            if row.status == status and (row.shown["attempts"] or row.shown.get("items")):
                return row
    tolerated = [row for row in rows if row.status == "tolerated"]
    begun = [row for row in rows if row.shown["attempts"]]
    return next(iter(tolerated or begun[-1:] or rows), None)


def _line(spans: Timeline | None, chosen: Row | None) -> SubStepLine | None:
    if spans is None or chosen is None:
        return None
    phase, name = split_key(chosen.key)
    found = [line for of in spans["phases"] if of["name"] == phase for line in of["sub_steps"] if line["name"] == name]
    return found[0] if found else None


def _differences(
    service: Service, head: Head, document: dict[str, Any], asked: Asked
) -> list[tuple[Change, str]] | None:
    """What changed since the version that was picked."""
    if asked.since is None:
        return None
    before = service.jobs.at(head.job_id, service.jobs.version(head, str(asked.since)))
    earlier = service.jobs.masks(before["workflow"]).snapshot(snapshot(before))
    found = [change for change in changes(earlier, document) if _matters(change)]
    return [(change, _place(change)) for change in found[:CHANGES_MAX]]


def _matters(change: Change) -> bool:
    """Whether a person looks for it: not the clock's and the counter's part in what changed."""
    last = str(change.path[-1]) if change.path else ""
    return change.path[:1] == ("context",) or not (last.endswith("_at") or last in _COUNTED)


def _place(change: Change) -> str:
    """Where it changed, in a job's words."""
    words = [str(part) for part in change.path if part not in ("phases", "sub_steps")]
    return " › ".join(words)


def changed_fields(view: JobView) -> set[str]:
    """Fields of the context that changed since the version picked, or in the latest event."""
    if view.differences is not None:
        paths = [change.path for change, _ in view.differences]
        return {str(path[1]) for path in paths if path[:1] == ("context",) and len(path) > 1}
    latest = view.events[0]["data"] if view.events and view.events[0]["version"] == view.state["version"] else {}
    return {*latest.get("set", {}), *latest.get("unset", [])}
