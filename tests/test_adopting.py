"""Rows of the table of before become jobs that go on from where they were."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from steplog import Context, Step, Workflow, result
from steplog.cli import main
from steplog.engine.adopting import TableRow, adopt, rows_of
from steplog.engine.errors import AdoptionRefused
from steplog.engine.jobs import resume_blocking
from steplog.engine.verification import verify_job
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery, Store
from steplog.projections.evolve import fold
from steplog.projections.report_table import sub_step_progress
from steplog.projections.snapshot import snapshot

STARTED, COMPLETED = 1735430400123, 1735430412456


class Progress(Context):
    files: list[str] = []


def workflow(ran: list[str]) -> Workflow[Any, Progress]:
    wf = Workflow[Any, Progress]("registration", context=Progress)
    phase1, phase2 = wf.phase("phase1"), wf.phase("phase2")

    @phase1.sub_step
    def account() -> str:
        ran.append("account")
        return "a1"

    @phase1.sub_step(optional=True)
    def codes(step: Step[Any, Progress]) -> None:
        ran.append("codes")

    @phase2.sub_step
    def restaurant(step: Step[Any, Progress], of: str = result(account)) -> str:
        ran.append(f"restaurant of {of} with {step.context.files}")
        return "r1"

    @phase2.sub_step(optional=True)
    def services() -> None:
        ran.append("services")

    return wf


def progress(**phase2: Any) -> dict[str, Any]:
    phase1 = {
        "account": {
            "status": "completed", "started_at": STARTED, "completed_at": COMPLETED, "attempt": 1, "attempts": 2,
        },
        "codes": {"status": "skipped", "reason": "Disabled in config"},
    }  # fmt: skip
    return {
        "current_phase": "phase2",
        "phases": {
            "phase1": {"status": "completed", "sub_steps": phase1},
            "phase2": {"status": "in_progress", "sub_steps": phase2},
        },
        "context": {"files": ["index.html"]},
    }


IN_FLIGHT = progress(
    restaurant={"status": "in_progress", "started_at": STARTED, "attempt": 1},
    services={"status": "failed", "error": "502", "attempts": 3, "started_at": STARTED},
)


def test_what_had_settled_is_not_done_again_and_what_was_in_flight_is(store: Store) -> None:
    ran: list[str] = []
    wf = workflow(ran)
    row = TableRow("r42", IN_FLIGHT, results={"phase1/account": "a0"})
    done = adopt(store, wf, row, by="anna")
    assert (done.row, done.outcome) == ("registration_job_steps/r42/6", "adopted")
    assert done.job_id
    first = next(iter(store.read(done.job_id)))
    assert first.data["reason"] == "taken from registration_job_steps/r42/6; in flight there: phase2/restaurant"
    account = snapshot(fold(store.read(done.job_id)))["phases"]["phase1"]["sub_steps"]["account"]
    assert (account["status"], account["attempts"]) == ("completed", 2)
    assert (account["started_at"], account["completed_at"]) == (
        "2024-12-29T00:00:00.123000Z",
        "2024-12-29T00:00:12.456000Z",
    )

    job = resume_blocking(wf, done.job_id, store, by="anna")
    assert job.status == "completed"
    assert ran == ["restaurant of a0 with ['index.html']"]
    assert list(verify_job(store, done.job_id)) == []


def test_adopted_job_shows_the_page_what_the_row_did(store: Store) -> None:
    done = adopt(store, workflow([]), TableRow("r42", IN_FLIGHT), by="anna")
    assert done.job_id
    shown = sub_step_progress(fold(store.read(done.job_id)))
    assert shown["current_phase"] == "phase2"
    assert shown["context"] == IN_FLIGHT["context"]
    assert shown["phases"]["phase1"]["sub_steps"]["codes"] == IN_FLIGHT["phases"]["phase1"]["sub_steps"]["codes"]
    assert shown["phases"]["phase2"]["sub_steps"]["restaurant"] == {"status": "pending"}
    assert shown["phases"]["phase2"]["sub_steps"]["services"]["error"] == "502"


def test_row_is_taken_once(store: Store) -> None:
    wf = workflow([])
    first = adopt(store, wf, TableRow("r42", IN_FLIGHT), by="anna")
    again = adopt(store, wf, TableRow("r42", IN_FLIGHT), by="bert")
    assert (again.job_id, again.outcome) == (first.job_id, "there already")


def test_row_that_has_ended_is_left_out(store: Store) -> None:
    row = TableRow("r42", {**IN_FLIGHT, "current_phase": "completed"})
    assert adopt(store, workflow([]), row, by="anna").outcome == "not in flight"
    assert store.heads(HeadQuery()) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"phases": {"phase9": {"sub_steps": {"x": {"status": "pending"}}}}}, "has no phase9/x"),
        ({"phases": {"phase1": {"sub_steps": {"account": {"status": "stuck"}}}}}, "unknown status stuck"),
        ({"phases": [1]}, "another shape"),
        ({"context": {"files": 7}}, "its context does not fit"),
    ],
    ids=str,
)
def test_row_that_does_not_fit_is_refused_and_leaves_no_trace(store: Store, change: dict[str, Any], why: str) -> None:
    with pytest.raises(AdoptionRefused, match=why):
        adopt(store, workflow([]), TableRow("r42", {**IN_FLIGHT, **change}), by="anna")
    assert store.heads(HeadQuery()) == []


@pytest.mark.parametrize("line", [b"", b"7", b'{"job_id": "r42"}', b'{"job_id": "r42", "more": 1}'])
def test_line_that_is_no_row_is_refused(line: bytes) -> None:
    with pytest.raises(AdoptionRefused, match="line 1"):
        list(rows_of([line]))


def test_adopt_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oven.py").write_text(
        "from steplog import Workflow\nwf = Workflow('registration')\n"
        "@wf.phase('phase1').sub_step\ndef account() -> str:\n    return 'a1'\n"
    )
    row = {
        "job_id": "r42",
        "sub_step_progress": {"phases": {"phase1": {"sub_steps": {"account": {"status": "pending"}}}}},
    }
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps(row))
    said = CliRunner().invoke(main, ["--db", "sqlite:///log.db", "adopt", "oven", "rows.jsonl"], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith("registration_job_steps/r42/6  adopted  ")
    with closing(SQLiteStore(tmp_path / "log.db")) as store:
        assert len(store.job_of_key("registration", "r42")) == 1
