"""Sub-steps that wait, for time or for a signal: durably, and holding no thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from steplog import JobHandle, Settings, Step, Workflow, result
from steplog.engine import operators
from steplog.engine.adoption import differences
from steplog.engine.decider import next_due
from steplog.engine.errors import DefinitionError
from steplog.engine.history import load
from steplog.engine.jobs import resume_blocking, run_here
from steplog.engine.plan import plan_of
from steplog.engine.worker import Worker
from steplog.eventstore.store import HeadQuery, Store
from steplog.projections.plan import Plan
from steplog.projections.resume_point import resume_point
from steplog.projections.snapshot import snapshot
from steplog.projections.state import State

QUICK = Settings(heartbeat_s=0.05)
DONE_S_MAX = 15


def state_of(store: Store, job: JobHandle[Any]) -> State:
    return load(store, job.job_id).state


def types(store: Store, job_id: str) -> list[str]:
    return [event.type for event in store.read(job_id)]


def newest(store: Store) -> str:
    return store.heads(HeadQuery(limit=1))[0].job_id


def watch_until_it_waits(wf: Workflow[Any, Any], store: Store) -> None:
    looking = threading.Event()
    while not store.heads(HeadQuery(workflow=wf.name)) or "SubStepWaiting" not in types(store, newest(store)):
        looking.wait(0.01)


def run_until_it_waits(wf: Workflow[Any, Any], store: Store) -> str:
    """A job that was interrupted while it waited; its id."""

    async def cut() -> None:
        running = asyncio.ensure_future(wf.arun(store=store))
        await asyncio.to_thread(watch_until_it_waits, wf, store)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cut())
    return newest(store)


def resumed_and_cut(wf: Workflow[Any, Any], job_id: str, store: Store) -> None:
    """Another worker takes the job, and ends in the middle of the wait too."""

    async def cut() -> None:
        with Worker(store) as worker:
            owned = worker.claim(job_id, wf)
            running = asyncio.ensure_future(worker.run(owned))
            await asyncio.sleep(0.05)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(cut())


def approval(default: bool = False, timeout: str | None = None) -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("approval")
    if default:
        approved = wf.wait_for_signal("approved", str, timeout=timeout, default="nobody")
    else:
        approved = wf.wait_for_signal("approved", str, timeout=timeout)

    @wf.sub_step
    def ship(by: str = result(approved)) -> str:
        return f"approved by {by}"

    return wf


def test_a_job_sleeps_and_goes_on(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("sleeper")
    asleep = wf.sleep("20ms")
    wf.sub_step(name="then", after=[asleep])(lambda: None)

    job = wf.run(store=store)

    assert job.status == "completed"
    assert types(store, job.job_id)[3:6] == ["SubStepWaiting", "SubStepCompleted", "SubStepStarted"]
    waiting, completed = list(store.read(job.job_id))[3:5]
    assert completed.recorded_at >= waiting.data["until"]
    assert (waiting.data["sub_step"], waiting.data["kind"]) == ("sleep_20ms", "sleep")


def test_a_wait_is_over_when_it_was_due_however_often_its_owner_ends(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("sleeper")
    wf.sleep("1h", name="nap")
    job_id = run_until_it_waits(wf, store)
    resumed_and_cut(wf, job_id, store)
    (until,) = (event.data["until"] for event in store.read(job_id) if event.type == "SubStepWaiting")

    state = load(store, job_id).state
    assert state["phases"]["main"]["sub_steps"]["nap"]["wait"] == {"kind": "sleep", "until": until, "signal": None}
    assert types(store, job_id).count("SubStepWaiting") == 1
    assert next_due({**state, "status": "running"}, state["recorded_at"]) == until


def test_a_signal_ends_the_wait_and_its_payload_is_the_result(store: Store) -> None:
    wf = approval()

    async def signalled() -> Any:
        running = asyncio.ensure_future(run_here(wf, store=store, settings=QUICK))
        await asyncio.to_thread(watch_until_it_waits, wf, store)
        operators.signal(store, newest(store), "approved", "anna", by="anna")
        return await asyncio.wait_for(running, DONE_S_MAX)

    job = asyncio.run(signalled())
    assert job.status == "completed"
    assert state_of(store, job)["phases"]["main"]["sub_steps"]["ship"]["result"] == "approved by anna"
    assert state_of(store, job)["signals"] == {}


def test_a_signal_that_came_before_counts_and_is_taken_once(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("twice")
    one = wf.wait_for_signal("go", int, name="one")
    wf.wait_for_signal("go", int, name="two", after=[one])
    job_id = run_until_it_waits(wf, store)
    for number in (1, 2):
        operators.signal(store, job_id, "go", number, by="anna")

    job = resume_blocking(wf, job_id, store, by="anna")

    results = {name: step["result"] for name, step in state_of(store, job)["phases"]["main"]["sub_steps"].items()}
    assert results == {"one": 1, "two": 2}


def test_a_signal_that_does_not_come_in_time_is_a_failure(store: Store) -> None:
    job = approval(timeout="10ms").run(store=store)
    assert (job.status, (state_of(store, job)["error"] or {})["type"]) == ("failed", "SignalTimeout")


def test_or_the_default(store: Store) -> None:
    job = approval(default=True, timeout="10ms").run(store=store)
    assert state_of(store, job)["phases"]["main"]["sub_steps"]["ship"]["result"] == "approved by nobody"


def test_waiting_holds_no_thread_and_no_place_in_a_bounded_phase(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("many")
    phase = wf.phase("waits", parallel=1)
    for number in range(50):
        phase.sleep(0.05, name=f"nap {number}")
    threads: list[int] = []

    @phase.sub_step
    def counts() -> None:
        threads.append(threading.active_count())

    assert wf.run(store=store).status == "completed"
    assert threads[0] < 20


def test_a_wait_begins_although_the_phase_has_no_room(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("full")
    phase = wf.phase("waits", parallel=1)

    @phase.sub_step
    def looks(step: Step) -> bool:
        return "SubStepWaiting" in types(store, step.job_id)

    phase.sleep("1ms")

    assert wf.run(store=store).result(looks) is True


def test_a_payload_of_another_type_is_refused_and_the_next_signal_counts(store: Store) -> None:
    wf = approval()
    job_id = run_until_it_waits(wf, store)
    operators.signal(store, job_id, "approved", 7, by="anna")

    job = resume_blocking(wf, job_id, store, by="anna")
    assert (job.status, job.snapshot["error"]["type"]) == ("failed", "SignalRefused")
    assert job.snapshot["error"]["message"] == "payload: Input should be a valid string"

    operators.signal(store, job_id, "approved", "berta", by="anna")
    again = resume_blocking(wf, job_id, store, by="anna")
    assert again.snapshot["phases"]["main"]["sub_steps"]["ship"]["result"] == "approved by berta"


def test_a_wait_that_failed_waits_anew_when_it_is_retried_by_hand(store: Store) -> None:
    wf = approval(timeout="10ms")
    job = wf.run(store=store)
    operators.retry(store, job.job_id, "approved", by="anna")
    operators.signal(store, job.job_id, "approved", "anna", by="anna")

    again = resume_blocking(wf, job.job_id, store, by="anna")

    assert again.status == "completed"
    assert types(store, job.job_id).count("SubStepWaiting") == 2


def test_people_see_what_is_waited_for_and_until_when(store: Store) -> None:
    job_id = run_until_it_waits(approval(timeout="1h"), store)
    (until,) = (event.data["until"] for event in store.read(job_id) if event.type == "SubStepWaiting")
    state = load(store, job_id).state

    shown = snapshot(state)["phases"]["main"]["sub_steps"]["approved"]
    assert (shown["status"], shown["attempts"]) == ("waiting", 0)
    assert shown["wait"] == {"kind": "signal", "signal": "approved", "until": until}
    assert resume_point(state)["waiting"] == [
        {"sub_step": "main/approved", "for": "signal approved", "until": until},
        {"sub_step": "main/ship", "for": "main/approved", "until": None},
    ]


def test_a_failure_does_not_wait_for_a_wait(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("fails")
    wf.sleep("1h")

    @wf.sub_step
    def fails() -> None:
        raise ValueError("no")

    async def in_time() -> str:
        return (await asyncio.wait_for(wf.arun(store=store), DONE_S_MAX)).status

    assert asyncio.run(in_time()) == "failed"


def plan_with(wait: str) -> Plan:
    wf: Workflow[Any, Any] = Workflow("w")
    match wait:
        case "handler":
            wf.sub_step(name="step")(lambda: None)
        case "1m" | "1h":
            wf.sleep(wait, name="step")
        case signal:
            wf.wait_for_signal(signal, name="step")
    return plan_of(wf)


def test_what_is_waited_for_is_compared_with_the_code_and_not_for_how_long() -> None:
    assert differences(plan_with("1m"), plan_with("1h")) == []
    assert differences(plan_with("1m"), plan_with("go")) == [
        "sub-step main/step waited for time and waits for signal go"
    ]
    assert len(differences(plan_with("stop"), plan_with("go"))) == 1
    assert len(differences(plan_with("handler"), plan_with("1h"))) == 1


def test_a_wait_cannot_be_called_and_a_duration_is_checked() -> None:
    wf: Workflow[Any, Any] = Workflow("w")
    with pytest.raises(TypeError):
        wf.sleep("1m")()
    with pytest.raises(DefinitionError):
        wf.sleep("soon")
