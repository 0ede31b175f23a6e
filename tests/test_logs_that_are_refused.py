"""A log that cannot be trusted or understood is refused by job and version, nothing is appended to it, others run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from steplog import PlanMismatch, Workflow, result
from steplog.engine.jobs import resume_blocking
from steplog.eventstore.chain import GENESIS, link
from steplog.eventstore.errors import DamagedLog, LogError, UnknownEvent
from steplog.eventstore.sqlite import SQLiteStore

Row = dict[str, Any]
Change = Callable[[list[Row]], None]


def two_steps(fails: bool = True) -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("refused")

    @wf.sub_step
    def first() -> int:
        return 1

    @wf.sub_step
    def second(value: int = result(first)) -> int:
        if fails:
            raise ValueError("wait for a person")
        return value

    return wf


def set_field(version: int, name: str, value: Any) -> Change:
    def change(rows: list[Row]) -> None:
        rows[version - 1][name] = value

    return change


def swap(rows: list[Row]) -> None:
    rows[4]["version"], rows[5]["version"] = rows[5]["version"], rows[4]["version"]
    rows[4], rows[5] = rows[5], rows[4]


def swap_contents(rows: list[Row]) -> None:
    for name in ("type", "data", "event_id"):
        rows[4][name], rows[5][name] = rows[5][name], rows[4][name]


def cut(version: int) -> Change:
    def change(rows: list[Row]) -> None:
        del rows[version - 1]

    return change


def cut_tail(rows: list[Row]) -> None:
    del rows[-2:]


def repeat(rows: list[Row]) -> None:
    rows[5] = {**rows[4], "version": 6}


FORGED: dict[str, tuple[Change, type[LogError], int]] = {
    "unknown type": (set_field(5, "type", "SubStepTeleported"), UnknownEvent, 5),
    "newer schema version": (set_field(5, "schema_version", 99), UnknownEvent, 5),
    "extra field": (
        set_field(5, "data", '{"attempt":1,"extra":1,"generation":1,"phase":"main","seconds":1.0,"sub_step":"first"}'),
        DamagedLog,
        5,
    ),
    "missing field": (
        set_field(5, "data", '{"attempt":1,"generation":1,"phase":"main","sub_step":"first"}'),
        DamagedLog,
        5,
    ),
    "field of another kind": (
        set_field(5, "data", '{"attempt":"1","generation":1,"phase":"main","seconds":1.0,"sub_step":"first"}'),
        DamagedLog,
        5,
    ),
    "no JSON": (set_field(5, "data", '{"attempt":1'), DamagedLog, 5),
    "no object": (set_field(5, "data", "[]"), DamagedLog, 5),
    "sub-step that does not exist": (
        set_field(5, "data", '{"attempt":1,"generation":1,"phase":"main","seconds":1.0,"sub_step":"zeroth"}'),
        DamagedLog,
        5,
    ),
    "gap in a forged chain": (cut(5), DamagedLog, 5),
}
"""Rows changed by somebody who forged the hash chain too: only their meaning gives them away."""

TAMPERED: dict[str, tuple[Change, int]] = {
    "swapped rows": (swap_contents, 5),
    "another result": (
        set_field(
            5,
            "data",
            '{"attempt":1,"by":"engine","generation":1,"phase":"main","result":2,"seconds":1.0,"sub_step":"first"}',
        ),
        5,
    ),
    "another time": (set_field(5, "recorded_at", "2026-01-01T00:00:00.000000Z"), 5),
    "another event id": (set_field(5, "event_id", "01a20947-36ac-7505-a9ba-6fddff6faeb2"), 5),
    "gap": (cut(5), 5),
    "repeated row": (repeat, 6),
    "cut tail": (cut_tail, 8),
}


def rewrite(path: Path, job_id: str, change: Change, *, forge: bool) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.row_factory = sqlite3.Row
        found = raw.execute("SELECT * FROM events WHERE job_id = ? ORDER BY version", (job_id,)).fetchall()
        rows = [dict(row) for row in found]
        change(rows)
        if forge:
            rechain(rows)
            raw.execute("UPDATE jobs SET hash = ? WHERE job_id = ?", (rows[-1]["hash"], job_id))
        raw.execute("DROP TRIGGER events_refuse_delete")
        raw.execute("DELETE FROM events WHERE job_id = ?", (job_id,))
        for row in rows:
            row.pop("position", None)
            names = ", ".join(row)
            raw.execute(f"INSERT INTO events ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))  # noqa: S608


def rechain(rows: list[Row]) -> None:
    before = GENESIS
    for row in rows:
        before = row["hash"] = link(
            before,
            row["job_id"],
            row["version"],
            row["event_id"],
            row["type"],
            row["schema_version"],
            row["recorded_at"],
            row["data"].encode(),
        )


def count(store: SQLiteStore, path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        (found,) = raw.execute("SELECT count(*) FROM events").fetchone()
    return int(found)


@pytest.mark.parametrize("name", FORGED)
def test_a_row_that_cannot_be_understood_is_named_and_nothing_is_appended(tmp_path: Path, name: str) -> None:
    change, kind, version = FORGED[name]
    assert_refused(tmp_path / "log.db", change, kind, version, forge=True)


@pytest.mark.parametrize("name", TAMPERED)
def test_a_row_that_was_tampered_with_is_named_and_nothing_is_appended(tmp_path: Path, name: str) -> None:
    change, version = TAMPERED[name]
    assert_refused(tmp_path / "log.db", change, DamagedLog, version, forge=False)


def assert_refused(path: Path, change: Change, kind: type[LogError], version: int, *, forge: bool) -> None:
    store = SQLiteStore(path)
    job_id = two_steps().run(store=store).job_id
    other = two_steps().run(store=store).job_id
    rewrite(path, job_id, change, forge=forge)
    before = count(store, path)

    with pytest.raises(LogError) as refused:
        resume_blocking(two_steps(fails=False), job_id, store, by="anna")

    assert (type(refused.value), refused.value.job_id, refused.value.version) == (kind, job_id, version)
    assert count(store, path) == before
    assert resume_blocking(two_steps(fails=False), other, store, by="anna").status == "completed"
    store.close()


def test_a_plan_that_changed_is_refused_with_the_difference_and_leaves_no_trace(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    job_id = two_steps().run(store=store).job_id
    version = store.head(job_id).version
    changed: Workflow[Any, Any] = Workflow("refused")

    @changed.sub_step
    def first() -> int:
        return 1

    @changed.sub_step
    def third(value: int = result(first)) -> int:
        return value

    with pytest.raises(PlanMismatch, match=r"main/second is gone from the code .*; sub-step main/third is new"):
        resume_blocking(changed, job_id, store, by="anna")
    assert store.head(job_id).version == version
    store.close()
