"""Whether what a projection keeps is what the log comes to: each document made again in memory, and compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import orjson

from steplog.eventstore.errors import FeedMoved, JobNotFound, LogError
from steplog.eventstore.events import Event
from steplog.eventstore.projected import Document, StepRow
from steplog.eventstore.store import Store
from steplog.projections.loading import Loaded, load
from steplog.projections.projecting import Projection, Tally, added, is_group
from steplog.projections.state import State
from steplog.projections.verification import Finding

PAGE = 500
ANEW = "`steplog db rebuild` makes it anew"


class KeptDocuments:
    """The documents, totals and rows of one projection, as they stand. Appends and runners may go on meanwhile.

    Nothing is said of what has not been built, or is out of date and about to be: that is no damage.
    """

    def __init__(self, store: Store, projection: Projection) -> None:
        self._store = store
        self._projection = projection
        self._live = store.projected.checkpoints().get(projection.name)
        self._aside = {each.job_id for each in store.projected.quarantined() if each.projection == projection.name}

    @property
    def are_live(self) -> bool:
        return self._live is not None and self._live["revision"] == self._projection.revision

    def wrong_of(self, job_id: str) -> Iterator[Finding]:
        """Where the job's document, or its rows, are not what its log comes to."""
        if not self.are_live or job_id in self._aside or self._store.pruned(job_id):
            return
        kept = self._kept(job_id)
        try:
            version = self._store.head(job_id).version
            if kept is None or kept.version < version:
                yield from self._left_behind(job_id, kept)
            elif kept.version > version:
                yield self._finding(job_id, kept.version, f"is of a version that the log does not have ({version})")
                return
            if kept is not None:
                yield from self._differences(kept)
        except (JobNotFound, LogError):
            return  # said already, of that job

    def wrong_totals(self) -> Iterator[Finding]:
        """Where a group's total is not the sum of its jobs', or a document belongs to no job.

        Totals are compared only where nothing was written while the documents were read.
        """
        if not self.are_live:
            return
        totals: dict[str, Tally] = {}
        kept: dict[str, Tally] = {}
        for document in self._pages():
            if is_group(document.key):
                kept[document.key] = document.data
                continue
            for key, tally in self._projection.tallies(document.data).items():
                totals[key] = added(totals.get(key, {}), tally)
            yield from self._without_job(document)
        if self._store.projected.checkpoints().get(self._projection.name) != self._live:
            return
        for key in sorted(totals.keys() | kept.keys()):
            if _canonical(totals.get(key, {})) != _canonical(kept.get(key, {})):
                yield Finding(None, 0, f"the {self._projection.name} of {key} are not the sum of its jobs'; {ANEW}")

    # --- one job -----------------------------------------------------------------------------------------------------

    def _kept(self, job_id: str) -> Document | None:
        return self._store.projected.documents(self._projection.name, self._number, [job_id]).get(job_id)

    @property
    def _number(self) -> int:
        return int(self._live["generation"]) if self._live else 0

    def _left_behind(self, job_id: str, kept: Document | None) -> Iterator[Finding]:
        """A projection that has not come so far is only late; one that has, has left the job out."""
        checkpoint = self._store.projected.checkpoints().get(self._projection.name)
        try:
            is_late = checkpoint is None or bool(self._store.feed(checkpoint["cursor"], 1).entries)
        except FeedMoved:
            return
        now = self._kept(job_id)
        if not is_late and now == kept and checkpoint == self._live:
            at = f"is at version {kept.version}" if kept else "is missing"
            yield self._finding(job_id, kept.version if kept else 1, f"{at}, and the projection has gone on")

    def _differences(self, kept: Document) -> Iterator[Finding]:
        made = self._projection.document(_Anew(self._store, kept))
        if _canonical(made) != _canonical(kept.data):
            yield self._finding(kept.key, kept.version, "is not what the log comes to")
        elif self._live and self._live["published"] is None:
            yield from (self._wrong_row(kept, row) for row in self._projection.rows(made) if self._is_wrong(kept, row))

    def _is_wrong(self, kept: Document, row: StepRow) -> bool:
        """Whether the table has something else, and neither the runner nor another job of that key put it there."""
        after = (row.job_id, row.step_number - 1)
        found = self._store.projected.step_rows(self._projection.table, after, 1)
        if found and _comparable(found[0]) == _comparable(row):
            return False
        if self._kept(kept.key) != kept:
            return False
        others = (self._kept(job_id) for job_id in self._store.job_of_key(None, row.job_id) if job_id != kept.key)
        rows = (each for other in others if other for each in self._projection.rows(other.data))
        return not found or _comparable(found[0]) not in map(_comparable, rows)

    def _wrong_row(self, kept: Document, row: StepRow) -> Finding:
        why = f"row {row.job_id}/{row.step_number} of the table is not what the log comes to"
        return Finding(kept.key, kept.version, f"{why}; {ANEW}")

    def _finding(self, job_id: str, version: int, why: str) -> Finding:
        return Finding(job_id, version, f"the job's document in {self._projection.name} {why}; {ANEW}")

    # --- all of them -------------------------------------------------------------------------------------------------

    def _pages(self) -> Iterator[Document]:
        after = ""
        while page := self._store.projected.page(self._projection.name, self._number, after, PAGE):
            yield from page
            after = page[-1].key

    def _without_job(self, document: Document) -> Iterator[Finding]:
        try:
            self._store.head(document.key)
        except JobNotFound:
            yield self._finding(document.key, document.version, "is of a job that is not there")
        except LogError:
            return


class _Anew:
    """A job up to a version, as a projection is shown it that knows nothing of it yet."""

    known = None

    def __init__(self, store: Store, kept: Document) -> None:
        self._store = store
        self._kept = kept

    def events(self) -> Iterable[Event]:
        return self._store.read(self._kept.key, 0, self._kept.version)

    def state(self) -> State:
        return self._loaded.state

    @cached_property
    def _loaded(self) -> Loaded:
        return load(self._store, self._kept.key, self._kept.version)


def _comparable(row: StepRow) -> StepRow:
    """A table of a page's own keeps JSON in an order of its own."""
    return row._replace(sub_step_progress=_canonical(orjson.loads(row.sub_step_progress)).decode())


def _canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
