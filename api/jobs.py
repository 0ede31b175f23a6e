"""Jobs as the API reads them: folded once, kept for the next reader, masked before anybody sees them.

A thousand readers of one job cost the store what one costs: whoever comes first folds what is new, the others wait
for it. What is kept is bounded, and is checked against the job's head before it is handed out as the present.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from steplog.api.problems import Problem, invalid
from steplog.engine.definition import AnyDefinition
from steplog.engine.history import Loaded, load
from steplog.engine.masking import Masks, without
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.eventstore.store import Head, Store
from steplog.projections.documents import event_document
from steplog.projections.evolve import as_state, fold
from steplog.projections.state import REDUCER_VERSION, State

KEPT_JOBS = 64
"""How many folded jobs are kept."""
TURNS = 64


WHOLE_EVENTS_MAX = 2000
"""Of jobs up to this length all events are kept."""
LATEST_EVENTS = 100
"""How many of a job's latest events are kept with it."""


class _Kept(NamedTuple):
    """A folded job and its latest events."""

    loaded: Loaded
    latest: tuple[Event, ...]

    @property
    def end(self) -> Position:
        return self.loaded.position


def _latest(events: Sequence[Event]) -> tuple[Event, ...]:
    """As many as are kept; of a short job, all."""
    return tuple(events if len(events) <= WHOLE_EVENTS_MAX else events[-LATEST_EVENTS:])


class Jobs:
    """Reading of jobs, from any thread."""

    def __init__(self, store: Store, definitions: Mapping[str, AnyDefinition]) -> None:
        self.store = store
        self.definitions = definitions
        """The workflows whose code is at hand, by name."""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._masks = {name: Masks.of(definition) for name, definition in definitions.items()}
        self._turns = [threading.RLock() for _ in range(TURNS)]
        self._lock = threading.Lock()

    # --- states ------------------------------------------------------------------------------------------------------

    def present(self, job_id: str) -> State:
        """The job as it is now. Raises JobNotFound."""
        return self.of_head(self.store.head(job_id))

    def of_head(self, head: Head) -> State:
        """The job as of a head just read, or a later one; a kept state of a log that is gone is dropped."""
        return self._as_of(head).loaded.state

    def at(self, job_id: str, version: int) -> State:
        """The job as it was at a version. Raises Problem where it has not come to it."""
        kept = self._kept.get(job_id)
        if kept is not None and kept.loaded.position.version == version:
            return kept.loaded.state
        loaded = load(self.store, job_id, version)
        if loaded.state["version"] != version:
            raise Problem(404, "version-not-found", f"job {job_id} has no version {version}", job_id=job_id)
        return loaded.state

    def latest_events(self, head: Head) -> list[Event]:
        """The job's latest events, all of them or more than LATEST_EVENTS; read together with its state."""
        return [event for event in self._as_of(head).latest if event.version <= head.version]

    def _as_of(self, head: Head) -> _Kept:
        with self._turn_of(head.job_id):
            kept = self._kept.get(head.job_id)
            if kept is not None and (kept.end.version > head.version or kept.end == head.position):
                return kept
            kept = (self._caught_up(kept, head) if kept else None) or self._opened(head)
            self._keep(kept)
            return kept

    def _opened(self, head: Head) -> _Kept:
        """The job with its latest events: a long one from a stored state on, a short one from its beginning."""
        if head.version <= WHOLE_EVENTS_MAX:
            events = self.store.tail(head, Position())
            return _Kept(Loaded(fold(events), head.position), _latest(events))
        stored = self.store.open_job(head.job_id, REDUCER_VERSION, head.version - LATEST_EVENTS).stored
        known = stored.position if stored else Position()
        events = self.store.tail(head, known)
        state = fold(events, as_state(stored.state) if stored else None)
        return _Kept(Loaded(state, head.position, known.version), _latest(events))

    def _caught_up(self, kept: _Kept, head: Head) -> _Kept | None:
        """The same with what came since; None where the log is not the one that it was."""
        try:
            tail = self.store.tail(head, kept.loaded.position)
        except DamagedLog:
            return None
        state = fold(tail, kept.loaded.state)
        return _Kept(Loaded(state, head.position, kept.loaded.stored_at), _latest([*kept.latest, *tail]))

    def _turn_of(self, job_id: str) -> threading.RLock:
        """The lock of a job; jobs share them by chance, which costs no more than a wait."""
        return self._turns[hash(job_id) % len(self._turns)]

    def _keep(self, kept: _Kept) -> None:
        job_id = kept.loaded.state["job_id"]
        with self._lock:
            self._kept[job_id] = kept
            self._kept.move_to_end(job_id)
            while len(self._kept) > KEPT_JOBS:
                self._kept.popitem(last=False)

    # --- versions ----------------------------------------------------------------------------------------------------

    def version(self, head: Head, at: str) -> int:
        """The version that a number or an instant names. Raises Problem."""
        if at.isascii() and at.isdecimal() and len(at) < 19:
            version = int(at)
        else:
            version = version_at(self.store, head, parsed_instant(at))
        if not 1 <= version <= head.version:
            raise Problem(
                404,
                "version-not-found",
                f"job {head.job_id} has versions 1 to {head.version}, and {at!r} is none of them",
                versions=head.version,
            )
        return version

    # --- what is shown -----------------------------------------------------------------------------------------------

    def masks(self, workflow: str) -> Masks:
        """What is secret in jobs of the workflow."""
        return self._masks.get(workflow) or Masks()

    def secrets(self, state: State) -> tuple[str, ...]:
        """Texts of the job that nobody is shown."""
        masks = self.masks(state["workflow"])
        return () if masks.is_empty else masks.texts(state["input"], state["context"])

    def secrets_of(self, head: Head) -> tuple[str, ...]:
        """The same for a job of which only the head is known; folds nothing where nothing is secret."""
        return () if self.masks(head.columns.workflow).is_empty else self.secrets(self.of_head(head))

    def shown_head(self, head: Head) -> Head:
        """The head for others' eyes: the last error may tell a secret."""
        if not head.columns.last_error or self.masks(head.columns.workflow).is_empty:
            return head
        told = without(head.columns.last_error, self.secrets_of(head))
        return replace(head, columns=head.columns._replace(last_error=told))

    def shown_events(self, workflow: str, events: Iterable[Event], texts: tuple[str, ...]) -> list[dict[str, Any]]:
        """Events as documents for others' eyes."""
        masks = self.masks(workflow)
        return [event_document(event._replace(data=masks.data(event.type, event.data, texts))) for event in events]


def version_at(store: Store, head: Head, at: str) -> int:
    """The job's version at an instant, 0 before its first event; a logarithm of its length in reads."""
    if head.recorded_at <= at:
        return head.version
    before, behind = 0, head.version
    while behind - before > 1:
        middle = (before + behind) // 2
        (event,) = store.read(head.job_id, middle - 1, middle)
        if event.recorded_at <= at:
            before = middle
        else:
            behind = middle
    return before


def parsed_instant(text: str) -> str:
    """An RFC 3339 time as an instant. Raises Problem."""
    try:
        moment = datetime.fromisoformat(text.strip().replace(" ", "+"))
    except ValueError:
        raise invalid(f"{text[:60]!r} is no time: write 2026-01-31T12:00:00Z", parameter="at") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (OverflowError, ValueError):
        raise invalid(f"{text[:60]!r} is out of range", parameter="at") from None
