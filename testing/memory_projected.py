"""Projections in memory, as a store keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import orjson

from steplog.eventstore.projected import Change, Checkpoint, Document, JobVersion, Quarantined, StepRow


class ProjectedInMemory:
    """Everything as bytes, so that nobody holds a reference into it."""

    def __init__(self, versions: Callable[[], dict[str, int]]) -> None:
        self._versions = versions
        self._lock = threading.Lock()
        self._checkpoints: dict[str, bytes] = {}
        self._documents: dict[tuple[str, int, str], tuple[int, bytes]] = {}
        self._rows: dict[tuple[str, str, int], StepRow] = {}
        self._quarantined: dict[tuple[str, str], Quarantined] = {}

    def checkpoints(self) -> dict[str, Checkpoint]:
        with self._lock:
            return {name: orjson.loads(text) for name, text in sorted(self._checkpoints.items())}

    def documents(self, name: str, generation: int, keys: Sequence[str]) -> dict[str, Document]:
        with self._lock:
            return {
                key: self._document(name, generation, key) for key in keys if (name, generation, key) in self._documents
            }

    def page(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[Document]:
        with self._lock:
            keys = sorted(key for of, at, key in self._documents if (of, at) == (name, generation) and key > after)
            return [self._document(name, generation, key) for key in keys[:limit]]

    def jobs(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[JobVersion]:
        versions = self._versions()
        with self._lock:
            page = sorted(job_id for job_id in versions if job_id > after)[:limit]
            known = {job_id: self._documents.get((name, generation, job_id)) for job_id in page}
            return [
                JobVersion(job_id, versions[job_id], found[0] if (found := known[job_id]) else None) for job_id in page
            ]

    def store(self, change: Change) -> bool:
        with self._lock:
            for move in change.moves:
                if self._checkpoints.get(move.name) != _bytes(move.before):
                    return False
            for move in change.moves:
                after = _bytes(move.after)
                if after is None:
                    del self._checkpoints[move.name]
                else:
                    self._checkpoints[move.name] = after
            for document in change.documents:
                at = (change.name, change.generation, document.key)
                self._documents[at] = (document.version, orjson.dumps(document.data))
            for row in change.rows:
                self._rows[change.table or "", row.job_id, row.step_number] = row
            for job in change.quarantined:
                self._quarantined[job.projection, job.job_id] = job
            return True

    def remove(self, name: str, generation: int, limit: int = 1000) -> int:
        with self._lock:
            found = [at for at in self._documents if at[:2] == (name, generation)][:limit]
            for at in found:
                del self._documents[at]
            return len(found)

    def quarantined(self) -> list[Quarantined]:
        with self._lock:
            return [self._quarantined[at] for at in sorted(self._quarantined)]

    def release(self, name: str) -> None:
        with self._lock:
            for at in [at for at in self._quarantined if at[0] == name]:
                del self._quarantined[at]

    def step_rows(self, table: str | None = None, after: tuple[str, int] = ("", 0), limit: int = 500) -> list[StepRow]:
        with self._lock:
            found = sorted(at for at in self._rows if at[0] == (table or "") and at[1:] > after)
            return [self._rows[at] for at in found[:limit]]

    def _document(self, name: str, generation: int, key: str) -> Document:
        version, data = self._documents[name, generation, key]
        return Document(key, version, orjson.loads(data))


def _bytes(checkpoint: Checkpoint | None) -> bytes | None:
    return None if checkpoint is None else orjson.dumps(checkpoint, option=orjson.OPT_SORT_KEYS)
