"""Anchors: where each job's log ended at some time, kept away from the store, so that what is cut off, rewritten or
removed as a whole is found too. One JSON line a job, and one that ends the file, with an HMAC-SHA256 if there is a key.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import orjson

from steplog.engine.errors import AnchorRefused
from steplog.engine.verification import verify_job
from steplog.eventstore.errors import DamagedLog, JobNotFound, LogError, StoreDamaged
from steplog.eventstore.store import Store
from steplog.projections.verification import Finding


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a job's log ended."""

    job_id: str
    version: int
    hash: str


def anchor(store: Store, job_id: str) -> Anchor:
    """Where the job's log ends now. Raises JobNotFound, and LogError where anything is wrong with the job."""
    head = store.head(job_id)
    for found in verify_job(store, job_id):
        raise DamagedLog(job_id, found.version, found.why)
    return Anchor(job_id, head.version, head.hash)


def write_anchors(anchors: Iterable[Anchor], key: str | None) -> Iterator[bytes]:
    """The lines of an anchor file."""
    seal, jobs = _Seal(key), 0
    for each in anchors:
        line = _line({"job_id": each.job_id, "version": each.version, "hash": each.hash})
        seal.add(line)
        jobs += 1
        yield line
    yield _line({"jobs": jobs, seal.name: seal.value})


def read_anchors(lines: Iterable[bytes], key: str | None) -> Iterator[Anchor]:
    """The anchors of a file, each as its line is read.

    Raises AnchorRefused where a line is none, and, at the end, where lines are missing or changed, or where there is a
    key and the file is not signed with it. Without a key a signature is not looked at.
    """
    seal, before, jobs = _Seal(key), None, 0
    for number, line in enumerate(lines, 1):
        if before is not None:
            seal.add(before)
            jobs += 1
            yield _read(before, number - 1)
        before = line
    _refuse_unsealed(before, jobs, seal)


def differences(store: Store, anchors: Iterable[Anchor], job_id: str | None = None) -> Iterator[Finding]:
    """Where the store, or the one job, is not what it was when the anchors were made. A log may have grown since."""
    for each in anchors:
        if job_id in (None, each.job_id):
            why = _why_different(store, each)
            if why:
                yield Finding(each.job_id, each.version, f"{why}, says the anchor")


def _why_different(store: Store, anchor: Anchor) -> str | None:
    try:
        row = next(store.inspection.rows(anchor.job_id, anchor.version - 1, anchor.version), None)
        if row is not None:
            same = row.hash == anchor.hash
            return None if same else f"the log was rewritten: its hash was {anchor.hash[:12]}… (is {row.hash[:12]}…)"
        head = store.head(anchor.job_id)
        end = head.version
        if store.pruned(anchor.job_id):
            return None if anchor.version < end or head.hash == anchor.hash else f"its hash was {anchor.hash[:12]}…"
    except JobNotFound:
        return f"the job was removed: it had {anchor.version} events"
    except (LogError, StoreDamaged) as error:
        return f"{error}: the log had {anchor.version} events"
    return f"the log was cut: its head is at {end}, it had {anchor.version} events"


class _Seal:
    """What the last line of a file says of those before it: their HMAC, or without a key their digest."""

    def __init__(self, key: str | None) -> None:
        self.name = "sha256" if key is None else "hmac_sha256"
        self._digest = sha256() if key is None else hmac.new(key.encode(), digestmod=sha256)

    def add(self, line: bytes) -> None:
        self._digest.update(line)

    @property
    def value(self) -> str:
        return self._digest.hexdigest()


def _refuse_unsealed(last: bytes | None, jobs: int, seal: _Seal) -> None:
    try:
        end = orjson.loads(last or b"")
        counted = end["jobs"]
    except (ValueError, TypeError, KeyError):
        raise AnchorRefused("its last line is missing: it was cut") from None
    if counted != jobs:
        raise AnchorRefused(f"it has {jobs} jobs, and its last line says {counted}")
    if seal.name == "sha256" and "hmac_sha256" in end:
        return  # whoever has no key cannot tell
    if seal.name not in end:
        raise AnchorRefused("it is not signed, and there is a key")
    if not hmac.compare_digest(str(end[seal.name]), seal.value):
        raise AnchorRefused("its signature does not fit" if seal.name == "hmac_sha256" else "its digest does not fit")


def _read(line: bytes, number: int) -> Anchor:
    try:
        found = orjson.loads(line)
        made = Anchor(found["job_id"], found["version"], found["hash"])
    except (ValueError, TypeError, KeyError):
        raise AnchorRefused(f"line {number} is no anchor") from None
    if (type(made.job_id), type(made.version), type(made.hash)) != (str, int, str) or made.version < 1:
        raise AnchorRefused(f"line {number} is no anchor")
    return made


def _line(value: dict[str, object]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
