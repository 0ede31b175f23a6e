"""Commands that hold the store against itself, against an anchor, and take jobs out of it and into it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from steplog.commands.seeing import note_fleet
from steplog.commands.sharing import console_of, count_of_jobs, projections_of, store_of
from steplog.eventstore.disk import flush
from steplog.terminal.command import Command, log_to_stderr
from steplog.terminal.console import Console

if TYPE_CHECKING:
    from steplog.engine.anchors import Anchor
    from steplog.engine.verification import Tally
    from steplog.eventstore.store import Store
    from steplog.projections.kept_documents import KeptDocuments
    from steplog.projections.verification import Finding

ANCHOR_KEY = "STEPLOG_ANCHOR_KEY"

file_option = click.option(
    "-o", "--file", "out", type=click.Path(path_type=Path, dir_okay=False), help="Where to (default: stdout)."
)
job_or_all = click.argument("job", required=False)


@click.command(cls=Command)
@job_or_all
@click.option("--all", "every", is_flag=True, help="Every job (the default), the keys, and the database's files.")
@click.option("--anchor", "anchors", type=click.File("rb"), help="Compare with what `steplog anchor` wrote.")
@console_of
def verify(console: Console, job: str | None, every: bool, anchors: IO[bytes] | None) -> None:
    """Check all that is stored of a job, or of all: chains, events, heads, stored states, keys, projections.

    Exit code 7 if anything is not what it should be; each such thing is a line. With STEPLOG_ANCHOR_KEY set, the anchor
    must be signed with it.
    """
    from dataclasses import asdict

    from steplog.engine.anchors import read_anchors
    from steplog.engine.errors import IntegrityFailed
    from steplog.engine.verification import Tally

    _require_one(job, every, all_by_default=True)
    tally = Tally()
    with store_of(console) as store:
        known = list(read_anchors(anchors, os.environ.get(ANCHOR_KEY))) if anchors else []
        count = _report(console, (asdict(found) for found in _findings(console, store, job, known, tally)))
        console.note(
            f"{tally.jobs} jobs, {tally.events} events verified, {len(known)} anchors: {count or 'nothing'} wrong"
        )
        if count:
            raise IntegrityFailed(count)


@click.command(cls=Command)
@job_or_all
@click.option("--all", "every", is_flag=True, help="Every job.")
@file_option
@console_of
def anchor(console: Console, job: str | None, every: bool, out: Path | None) -> None:
    """Write down where logs end, to be kept away from the store and given to `steplog verify --anchor`.

    Signed with HMAC-SHA256 where STEPLOG_ANCHOR_KEY is set. A job that is damaged gets no anchor (exit code 7).
    """
    from steplog.engine.anchors import anchor as made
    from steplog.engine.anchors import write_anchors

    with store_of(console) as store:
        anchors = (made(store, job_id) for job_id in _jobs(store, job, every))
        _write(out, write_anchors(anchors, os.environ.get(ANCHOR_KEY)))


@click.command(cls=Command)
@click.option("--repair", is_flag=True, help="Give heads the columns that their logs fold to.")
@console_of
def doctor(console: Console, repair: bool) -> None:
    """Look for what is wrong with the store: its schema, its settings, its files, heads that disagree with logs."""
    from dataclasses import asdict

    from steplog.engine.errors import IntegrityFailed
    from steplog.engine.verification import repair as repair_head
    from steplog.engine.verification import verify_all
    from steplog.eventstore.errors import StoreNotMigrated

    log_to_stderr("steplog.eventstore", logging.WARNING)  # where settings of the server are named that risk the log
    with store_of(console) as store:
        pending = store.migrate(dry_run=True)
        if pending:
            raise StoreNotMigrated(f"{store.url} lacks {len(pending)} migrations, the first {pending[0]}")
        left = 0

        def findings() -> Iterator[dict[str, Any]]:
            nonlocal left
            for found in verify_all(store, kept=_kept_documents(console, store)):
                repaired = repair and found.repairable and found.job_id is not None
                if repaired and found.job_id is not None:
                    repair_head(store, found.job_id)
                left += not repaired
                yield {**asdict(found), "repaired": repaired}

        if not _report(console, findings()):
            console.note(f"nothing is wrong with {store.url}")
        note_fleet(console, store)
        if left:
            raise IntegrityFailed(left)


@click.command(cls=Command)
@job_or_all
@click.option("--all", "every", is_flag=True, help="Every job.")
@click.option("--with-keys", is_flag=True, help="Give the wrapped keys to their secrets along: erasing will miss them.")
@file_option
@console_of
def export(console: Console, job: str | None, every: bool, with_keys: bool, out: Path | None) -> None:
    """Write jobs with all their events as JSON lines, for `steplog import`. Their hash chains are checked.

    Secrets stay sealed, and without --with-keys nobody can open them elsewhere.
    """
    from steplog.engine.moving import export as lines_of

    with store_of(console) as store:
        jobs = _jobs(store, job, every)
        _write(out, (line for job_id in jobs for line in lines_of(store, job_id, with_keys=with_keys)))


@click.command("import", cls=Command)
@click.argument("file", type=click.File("rb"))
@console_of
def import_(console: Console, file: IO[bytes]) -> None:
    """Store the jobs of an export: each whole or not at all, and what is there already is left as it is."""
    from dataclasses import asdict

    from steplog.engine.moving import import_jobs

    with store_of(console, create=True) as store:
        for done in import_jobs(store, file):
            if console.output == "table":
                console.lines([f"{done.job_id}  {done.outcome}  {done.events} events"])
            else:
                console.document(asdict(done))


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@console_of
def backup(console: Console, file: Path) -> None:
    """Copy a SQLite store into a new FILE, while others go on. For PostgreSQL it says how."""
    from steplog.eventstore.sqlite import SQLiteStore

    if file.exists():
        raise click.UsageError(f"{file} is there already: name a new file")
    with store_of(console) as store:
        if not isinstance(store, SQLiteStore):
            raise click.UsageError("PostgreSQL has its own means: pg_dump --schema=steplog, or pg_basebackup")
        store.backup(file)
        console.note(f"{store.url} is in {file}")


COMMANDS = (verify, anchor, doctor, export, import_)

# --- what these commands share ---------------------------------------------------------------------------------------


def _require_one(job: str | None, every: bool, *, all_by_default: bool = False) -> None:
    if (job is not None) + every > 1 or not (job or every or all_by_default):
        raise click.UsageError("name a job, or --all")


def _jobs(store: Store, job: str | None, every: bool) -> Iterator[str]:
    from steplog.engine.lookup import find_job
    from steplog.eventstore.inspection import all_job_ids

    _require_one(job, every)
    if job:
        return iter([find_job(store, job)])
    return (job_id for job_id in all_job_ids(store.inspection) if store.pruned(job_id) is None)


def _findings(console: Console, store: Store, job: str | None, known: list[Anchor], tally: Tally) -> Iterator[Finding]:
    from steplog.engine.anchors import differences
    from steplog.engine.verification import verify_all, verify_job
    from steplog.eventstore.errors import JobNotFound, StoreDamaged
    from steplog.terminal.progress import Progress

    kept = _kept_documents(console, store)
    if job is None:
        total = 0
        with suppress(StoreDamaged):  # what cannot be counted is looked at all the same
            total = count_of_jobs(store)
        with Progress(console, "verify", total, "jobs") as progress:
            for found in verify_all(store, tally, lambda: progress.at(tally.jobs), kept):
                progress.clear()
                yield found
        yield from differences(store, known)
        return
    job_id = _find_stored(store, job)
    anchored = [each for each in known if each.job_id == job_id]
    with suppress(JobNotFound) if anchored else nullcontext():
        yield from verify_job(store, job_id, tally, kept)
    yield from differences(store, anchored)


def _kept_documents(console: Console, store: Store) -> list[KeptDocuments]:
    from steplog.projections.kept_documents import KeptDocuments

    return [KeptDocuments(store, each) for each in projections_of(console)]


def _find_stored(store: Store, job: str) -> str:
    """The job's id; what has no head is taken for an id as it stands."""
    from steplog.engine.lookup import find_job
    from steplog.eventstore.errors import JobNotFound

    try:
        return find_job(store, job)
    except JobNotFound:
        return job


def _report(console: Console, findings: Iterable[dict[str, Any]]) -> int:
    """Show each finding as it comes; how many there were."""
    from steplog.terminal.text import escape

    count = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal count
        for found in findings:
            count += 1
            yield found

    if console.output == "table":
        console.lines(escape(_line(found)) for found in counted())
    else:
        console.documents(counted())
    return count


def _line(found: dict[str, Any]) -> str:
    where = f"job {found['job_id']}, version {found['version']}: " if found["job_id"] else ""
    return f"{where}{found['why']}{' (repaired)' if found.get('repaired') else ''}"


def _write(out: Path | None, lines: Iterable[bytes]) -> None:
    """To stdout as they come, or into the file, which is there once all of them are."""
    if out is None:
        for line in lines:
            sys.stdout.buffer.write(line)
        return
    write_whole(out, lines)


def write_whole(out: Path, lines: Iterable[bytes]) -> None:
    """Write the file, which is there, and on disk, once all of it is."""
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(lines)
        flush(part)
        part.replace(out)
        flush(out.absolute().parent)
    finally:
        part.unlink(missing_ok=True)
