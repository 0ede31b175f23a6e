"""Writes the golden logs of this version: `python tests/golden/make_golden.py VERSION`. Once a release, never again.

Each file is an export of one job; beside it stands the snapshot that its log folds to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from logged_jobs import LoggedJob  # noqa: E402  # the folder of tests comes first
from operated_jobs import ERROR, plan  # noqa: E402
from shown_jobs import HALF_WAY, step_plan  # noqa: E402

from steplog.engine.fork import fork  # noqa: E402
from steplog.engine.moving import export  # noqa: E402
from steplog.eventstore import events as ev  # noqa: E402
from steplog.eventstore.events import EventData  # noqa: E402
from steplog.projections.evolve import fold  # noqa: E402
from steplog.projections.snapshot import snapshot  # noqa: E402
from steplog.testing.memory import MemoryStore  # noqa: E402


def half_way(store: MemoryStore) -> str:
    """A registration with a retry, a skip and a tolerated failure."""
    job = LoggedJob(store, store.clock)
    for _, fact in HALF_WAY:
        job.add([fact])
    return job.job_id


def by_hand(store: MemoryStore) -> str:
    """A job that people stopped, edited, reset, signalled and ended."""
    of: dict[str, Any] = {"phase": "main", "sub_step": "a"}
    steps = [step_plan("a"), step_plan("b", after=["main/a"])]
    facts: list[EventData] = [
        ev.JobCreated(
            workflow="w",
            workflow_version="1",
            plan=plan(main=steps),
            input={"n": 1},
            context={"a": None},
            key="k",
            tags={"city": "Bern"},
            priority=2,
            batch_id="batch",
        ),
        ev.JobClaimed(worker_id="worker", epoch=1, claim_id="claim", reason="first"),
        ev.PhaseStarted(phase="main"),
        ev.SubStepStarted(**of, attempt=1, idempotency_key="key"),
        ev.SubStepProgressed(**of, attempt=1, done=1, total=2, note="half"),
        ev.SubStepLogged(**of, attempt=1, lines=["a line"]),
        ev.SubStepCheckpointed(**of, attempt=1, cursor={"row": 7}, draft={"a": 1}),
        ev.SubStepInterrupted(**of, attempt=1, cause="owner died", worker_id="worker"),
        ev.SubStepStarted(**of, attempt=2, idempotency_key="key"),
        ev.SubStepFailed(**of, attempt=2, seconds=0.5, error=ERROR),
        ev.SubStepRetryScheduled(**of, attempt=3, retry_at="2026-11-23T13:00:00.000000Z"),
        ev.SubStepStarted(**of, attempt=3, idempotency_key="key"),
        ev.ContextChanged(set={"a": [1, "é", None]}, **of),
        ev.SubStepCompleted(**of, attempt=3, seconds=1.5, result={"rows": 260}),
        ev.LateOutcome(**of, attempt=2, outcome="completed", result=1, seconds=9.0),
        ev.JobPauseRequested(by="anna", reason="look"),
        ev.JobPaused(by="anna"),
        ev.InputChanged(input={"n": 2}, by="anna", reason="typo"),
        ev.ContextChanged(set={"b": 1}, unset=["a"], by="anna"),
        ev.JobResumed(by="anna"),
        ev.SignalReceived(name="go", payload={"ok": True}, signal_id="s1", by="bert"),
        ev.SubStepSkipped(phase="main", sub_step="b", cause="operator", reason="not needed", by="anna"),
        ev.SubStepReset(sub_steps=["main/b"], by="anna", reason="needed after all"),
        ev.JobCancelRequested(by="anna"),
        ev.JobCancelled(by="anna"),
    ]
    job = LoggedJob(store, store.clock)
    for fact in facts:
        job.add([fact])
    return job.job_id


def forked(store: MemoryStore) -> str:
    """A job begun from another one's past."""
    return fork(store, half_way(store), by="anna").state["job_id"]


JOBS: dict[str, Callable[[MemoryStore], str]] = {"half_way": half_way, "by_hand": by_hand, "forked": forked}


def main(version: str) -> None:
    for name, make in JOBS.items():
        store = MemoryStore()
        job_id = make(store)
        FOLDER.joinpath(f"{version}-{name}.jsonl").write_bytes(b"".join(export(store, job_id)))
        shown = snapshot(fold(store.read(job_id)))
        FOLDER.joinpath(f"{version}-{name}.snapshot.json").write_bytes(
            orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )


if __name__ == "__main__":
    main(sys.argv[1])
