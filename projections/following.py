"""Keeping one projection: from the feed, from a look at all jobs, and from the beginning beside what is read.

The live generation of a projection goes on from a cursor of the feed. The next one is built job by job while that goes
on, follows the feed from where it was begun, and takes the live one's place in one transaction. Every stretch is stored
together with its checkpoint: whoever is killed, the next one goes on from there; of two at once, one is late and looks
again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.errors import FeedMoved, JobNotFound, JobPruned, LogError, StoreError, StoreUnavailable
from steplog.eventstore.events import Event
from steplog.eventstore.projected import Change, Checkpoint, Document, Move, Quarantined, StepRow
from steplog.eventstore.store import Head, Store
from steplog.projections.evolve import fold
from steplog.projections.loading import Loaded, load, position_of
from steplog.projections.projecting import Projection, Tally, added, is_group
from steplog.projections.state import State

STRETCH_JOBS = 100
"""How many jobs one transaction takes on."""
STRETCH_ENTRIES = 500
EVENTS_AT_ONCE = 500
"""How many events the logs have at most that are read together."""
_STATES_KEPT = 64


class Late(Exception):
    """Another process keeps the projection too, and was there first: look again."""


def next_name(projection: str) -> str:
    """What the checkpoint of a projection's next generation is kept under."""
    return f"{projection}@next"


@dataclass(frozen=True, slots=True)
class _Generation:
    """Which documents are written, under which checkpoint, and whether anybody reads them."""

    name: str
    checkpoint: Checkpoint

    @property
    def number(self) -> int:
        return int(self.checkpoint["generation"])

    def moves_to(self, **changes: Any) -> Move:
        return Move(self.name, self.checkpoint, {**self.checkpoint, **changes})


@dataclass(frozen=True, slots=True)
class _Made:
    """What a job comes to."""

    document: Document
    taken_out: dict[str, Tally]
    put_in: dict[str, Tally]
    rows: list[StepRow]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Jobs that are written together, and those that cannot be."""

    made: list[_Made]
    aside: list[Quarantined]


class Follower:
    """One projection in one store."""

    def __init__(self, store: Store, projection: Projection) -> None:
        self._store = store
        self._kept = store.projected
        self.projection = projection
        self._states: OrderedDict[str, Loaded] = OrderedDict()

    # --- the live generation -----------------------------------------------------------------------------------------

    def advance(self) -> int:
        """Go on by one stretch; how many jobs and table rows were written. Builds what is not there or out of date.

        Raises Late, StoreUnavailable.
        """
        live = self._generation(self.projection.name)
        if live is None or live.checkpoint["revision"] != self.projection.revision:
            return self.build() or 1
        if live.checkpoint["published"] is not None:
            return self._publish(live)
        try:
            return self._follow(live)
        except FeedMoved:
            return self._look_at_all(live)

    def sweep(self) -> int:
        """Look at every job, whatever the feed says; how many were behind. Raises Late, StoreUnavailable."""
        live = self._generation(self.projection.name)
        if live is None:
            return 0
        return sum(self._apply(live, behind, live.moves_to()) for behind in self._behind(live.number))

    def lag_s(self) -> float | None:
        """For how many seconds the oldest event that is not taken in has been there; None where nothing is built."""
        live = self._generation(self.projection.name)
        if live is None:
            return None
        try:
            waiting = self._store.feed(live.checkpoint["cursor"], 1).entries
        except FeedMoved:
            return float("inf")
        return max(0.0, seconds_between(waiting[0].recorded_at, self._store.now())) if waiting else 0.0

    def _follow(self, generation: _Generation) -> int:
        page = self._store.feed(generation.checkpoint["cursor"], STRETCH_ENTRIES)
        if not page.entries:
            return 0
        versions = {entry.job_id: entry.version for entry in page.entries}
        known = self._kept.documents(self.projection.name, generation.number, list(versions))
        behind = [
            job_id for job_id, version in versions.items() if job_id not in known or known[job_id].version < version
        ]
        return self._apply(generation, behind, generation.moves_to(cursor=page.cursor))

    def _look_at_all(self, live: _Generation) -> int:
        """The log is another one: its feed goes on from now, once every job was looked at."""
        cursor = self._store.feed_end()
        looked_at = sum(self._apply(live, behind, live.moves_to()) for behind in self._behind(live.number))
        self._write(Change(self.projection.name, [live.moves_to(cursor=cursor)]))
        return looked_at + 1

    def _behind(self, number: int) -> Iterator[list[str]]:
        """Jobs that the documents of a generation are not up to, or are beyond, page by page."""
        after = ""
        while page := self._kept.jobs(self.projection.name, number, after, STRETCH_ENTRIES):
            behind = [job.job_id for job in page if job.known != job.version]
            for start in range(0, len(behind), STRETCH_JOBS):
                yield behind[start : start + STRETCH_JOBS]
            after = page[-1].job_id

    # --- the next generation -----------------------------------------------------------------------------------------

    def begin(self, *, anew: bool = False) -> None:
        """Begin the next generation, unless one was begun; `anew` begins again from its beginning."""
        under_way = self._generation(next_name(self.projection.name))
        if under_way and not anew and under_way.checkpoint["revision"] == self.projection.revision:
            return
        live = self._generation(self.projection.name)
        numbers = [generation.number for generation in (under_way, live) if generation]
        begun: Checkpoint = {
            "revision": self.projection.revision,
            "generation": max(numbers, default=0) + 1,
            "cursor": self._store.feed_end(),
            "after": "",
            "done": 0,
        }
        before = under_way.checkpoint if under_way else None
        self._write(Change(self.projection.name, [Move(next_name(self.projection.name), before, begun)]))
        self._kept.release(self.projection.name)

    def build(self) -> int:
        """Go on building the next generation by one stretch; once all of it is there it takes the live one's place.

        How many jobs were written. Raises Late, StoreUnavailable.
        """
        self.begin()
        generation = self._generation(next_name(self.projection.name))
        if generation is None:
            raise Late
        after = generation.checkpoint["after"]
        if after is not None:
            return self._walk(generation, after)
        try:
            caught_up = self._follow(generation)
        except FeedMoved:
            self.begin(anew=True)
            return 0
        if not caught_up:
            self._take_over()
        return caught_up

    def _walk(self, generation: _Generation, after: str) -> int:
        page = self._kept.jobs(self.projection.name, generation.number, after, STRETCH_JOBS)
        if not page:
            self._write(Change(self.projection.name, [generation.moves_to(after=None)], generation.number))
            return 0
        done = generation.checkpoint["done"] + len(page)
        behind = [job.job_id for job in page if job.known != job.version]
        self._apply(generation, behind, generation.moves_to(after=page[-1].job_id, done=done))
        return len(page)

    def _take_over(self) -> None:
        """The next generation becomes the live one; its rows are then published and the former one goes."""
        upcoming = self._generation(next_name(self.projection.name))
        if upcoming is None:
            raise Late
        live = self._generation(self.projection.name)
        after: Checkpoint = {
            "revision": upcoming.checkpoint["revision"],
            "generation": upcoming.number,
            "cursor": upcoming.checkpoint["cursor"],
            "published": "",
        }
        self._write(
            Change(
                self.projection.name,
                [
                    Move(self.projection.name, live.checkpoint if live else None, after),
                    Move(upcoming.name, upcoming.checkpoint, None),
                ],
            )
        )

    def _publish(self, live: _Generation) -> int:
        """Write the rows of the next documents of a generation that has just become the live one."""
        after = live.checkpoint["published"]
        page = self._kept.page(self.projection.name, live.number, after, STRETCH_ENTRIES)
        rows = [row for document in page if not is_group(document.key) for row in self.projection.rows(document.data)]
        if not page:
            self._remove_former(live.number)
        self._store_rows(live.moves_to(published=page[-1].key if page else None), rows, live)
        return len(rows) + 1

    def _store_rows(self, move: Move, rows: list[StepRow], live: _Generation) -> None:
        change = Change(self.projection.name, [move], live.number, table=self.projection.table, rows=rows)
        try:
            self._write(change)
        except StoreUnavailable:
            raise
        except StoreError:
            if len(rows) > 1:
                for row in rows:
                    self._store_rows(live.moves_to(), [row], live)
                self._store_rows(move, [], live)
            # A row that its table refuses is told of when its job is next written.

    def _remove_former(self, number: int) -> None:
        for former in range(1, number):
            while self._kept.remove(self.projection.name, former):
                pass

    # --- what a stretch comes to -------------------------------------------------------------------------------------

    def _apply(self, generation: _Generation, job_ids: Sequence[str], move: Move) -> int:
        """Write the jobs as they are now, and let the checkpoint move; how many were written."""
        aside = {job.job_id for job in self._kept.quarantined() if job.projection == self.projection.name}
        wanted = [job_id for job_id in job_ids if job_id not in aside]
        stretch = self._made(generation, wanted)
        try:
            self._write(self._change(generation, stretch, move))
        except StoreUnavailable:
            raise
        except StoreError as error:
            self._apply_one_by_one(generation, stretch, move, error)
        return len(wanted)

    def _apply_one_by_one(self, generation: _Generation, stretch: _Stretch, move: Move, error: StoreError) -> None:
        """The database refuses something of a stretch: what it is is put aside, everything else goes on."""
        if len(stretch.made) > 1:
            for made in stretch.made:
                self._apply(generation, [made.document.key], generation.moves_to())
            self._write(self._change(generation, _Stretch([], stretch.aside), move))
            return
        refused = [
            Quarantined(self.projection.name, made.document.key, made.document.version, str(error))
            for made in stretch.made
        ]
        self._write(self._change(generation, _Stretch([], [*stretch.aside, *refused]), move))

    def _made(self, generation: _Generation, job_ids: Sequence[str]) -> _Stretch:
        known = self._kept.documents(self.projection.name, generation.number, job_ids)
        heads = self._store.heads_of(job_ids)
        stretch = _Stretch([], [])
        for group in _together(heads):
            logs = self._store.read_heads(group) if _length(group) <= EVENTS_AT_ONCE else {}
            for head in group:
                job = _Job(self, head, known.get(head.job_id), logs.get(head.job_id))
                self._take(job, generation, stretch)
        for job_id in set(job_ids) - {head.job_id for head in heads}:
            stretch.aside.append(self._put_aside(job_id, 0, JobNotFound(job_id)))
        return stretch

    def _take(self, job: _Job, generation: _Generation, stretch: _Stretch) -> None:
        try:
            stretch.made.append(job.made())
        except StoreUnavailable:
            raise
        except JobPruned:
            stretch.made.extend(self._as_it_was(generation, job.job_id))
        except Exception as error:
            version = error.version if isinstance(error, LogError) else job.version
            stretch.aside.append(self._put_aside(job.job_id, version, error))

    def _put_aside(self, job_id: str, version: int, error: Exception) -> Quarantined:
        return Quarantined(self.projection.name, job_id, version, f"{type(error).__name__}: {error}")

    def _as_it_was(self, generation: _Generation, job_id: str) -> list[_Made]:
        """What the live generation keeps of a job whose events are gone: nothing else is left of it."""
        live = self._generation(self.projection.name)
        if live is None or live.number == generation.number:
            return []
        kept = self._kept.documents(self.projection.name, live.number, [job_id]).get(job_id)
        return [_Made(kept, {}, dict(self.projection.tallies(kept.data)), [])] if kept else []

    def _change(self, generation: _Generation, stretch: _Stretch, move: Move) -> Change:
        is_live = generation.name == self.projection.name
        return Change(
            self.projection.name,
            [move],
            generation.number,
            [*(made.document for made in stretch.made), *self._totals(generation, stretch.made)],
            self.projection.table,
            [row for made in stretch.made for row in made.rows] if is_live else [],
            stretch.aside,
        )

    def _totals(self, generation: _Generation, stretch: Sequence[_Made]) -> list[Document]:
        """The groups' totals with what the jobs added before taken out and what they add now put in."""
        changes: dict[str, Tally] = {}
        for made in stretch:
            for key, tally in made.taken_out.items():
                changes[key] = added(changes.get(key, {}), tally, -1)
            for key, tally in made.put_in.items():
                changes[key] = added(changes.get(key, {}), tally)
        keys = [key for key, change in changes.items() if change]
        known = self._kept.documents(self.projection.name, generation.number, keys) if keys else {}
        return [Document(key, 0, added(known[key].data if key in known else {}, changes[key])) for key in keys]

    # --- what it reads -----------------------------------------------------------------------------------------------

    def state_of(self, job_id: str) -> Loaded:
        """The job as it is now, from where this follower last saw it."""
        seen = self._states.pop(job_id, None)
        loaded = self._gone_on(seen) if seen else None
        loaded = loaded or load(self._store, job_id)
        self._states[job_id] = loaded
        if len(self._states) > _STATES_KEPT:
            self._states.popitem(last=False)
        return loaded

    def _gone_on(self, seen: Loaded) -> Loaded | None:
        """None where the log went backwards meanwhile."""
        job_id = seen.state["job_id"]
        head = self._store.head(job_id)
        if head.position == seen.position:
            return seen
        if head.version <= seen.position.version:
            return None
        tail = list(self._store.read(job_id, seen.position.version))
        return Loaded(fold(tail, seen.state), position_of(tail[-1]), seen.stored_at) if tail else None

    def events_after(self, job_id: str, version: int) -> Iterator[Event]:
        return self._store.read(job_id, version)

    def _generation(self, name: str) -> _Generation | None:
        checkpoint = self._kept.checkpoints().get(name)
        return _Generation(name, checkpoint) if checkpoint else None

    def _write(self, change: Change) -> None:
        if not self._kept.store(change):
            raise Late


class _Job:
    """A job as the projection is shown it; `version` is how far that has looked.

    Its log is given where it was read with others'; where that cannot be read, or is long, the job is asked for alone.
    """

    def __init__(
        self, follower: Follower, head: Head, stored: Document | None, log: list[Event] | LogError | None
    ) -> None:
        self._follower = follower
        self._head = head
        self._stored = stored
        self._log = log if isinstance(log, list) else None
        self.job_id = head.job_id
        self.version = stored.version if stored else 0
        self.known = stored.data if stored else None

    def made(self) -> _Made:
        """What the projection makes of it now."""
        if self.version > self._head.version:
            self.version, self.known = 0, None  # the log went backwards
        projection = self._follower.projection
        document = projection.document(self)
        return _Made(
            Document(self.job_id, self.version, document),
            dict(projection.tallies(self._stored.data)) if self._stored else {},
            dict(projection.tallies(document)),
            list(projection.rows(document)),
        )

    def events(self) -> Iterable[Event]:
        after = self.version
        for event in self._follower.events_after(self.job_id, after) if self._log is None else self._log[after:]:
            self.version = event.version
            yield event

    def state(self) -> State:
        state = self._follower.state_of(self.job_id).state if self._log is None else fold(self._log)
        self.version = state["version"]
        return state


def _together(heads: Sequence[Head]) -> Iterator[list[Head]]:
    """Jobs whose logs are read together; one that is long by itself is alone."""
    group: list[Head] = []
    for head in heads:
        if group and _length([*group, head]) > EVENTS_AT_ONCE:
            yield group
            group = []
        group.append(head)
    if group:
        yield group


def _length(heads: Iterable[Head]) -> int:
    return sum(head.version for head in heads)
