"""What a test runs workflows with: a store in memory, a clock that waits for nobody, resources of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, overload

from typing_extensions import TypeVar

from steplog.engine.context import Context
from steplog.engine.handle import JobHandle
from steplog.engine.history import load
from steplog.engine.injection import Produces
from steplog.engine.jobs import checked_input
from steplog.engine.step import NoInput
from steplog.engine.vault import vault_of
from steplog.engine.workflow import Workflow
from steplog.projections.state import State
from steplog.testing.clock import VirtualClock
from steplog.testing.crash_safety import CrashSafety, Effects
from steplog.testing.memory import MemoryStore
from steplog.testing.process import Fate, Process, Surroundings
from steplog.testing.rewiring import Provider
from steplog.testing.signals import send_awaited

I = TypeVar("I", default=NoInput)  # noqa: E741  # the field's usual letter for an input type
C = TypeVar("C", bound=Context, default=Context)

MayDiffer = Collection[Produces[Any] | str]
"""Results that rightly differ from run to run, by sub-step, and fields of the context as `context.field`."""


Signals = Mapping[str, Any]
"""Payloads by the names of signals, each sent as often as a sub-step waits for it."""

NO_SIGNALS: Signals = MappingProxyType({})


class Kit:
    """The pytest fixture `steplog`. Jobs run one at a time, on a loop of their own, where waits take no time."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self._replacements: dict[Provider, Any] = {}
        self._around = Surroundings(self.store, self.clock, self._replacements)
        self._running = threading.Lock()

    def use(self, provider: Provider, replacement: Any) -> None:
        """Give handlers that object wherever they `use(provider)`: as it is, neither opened nor closed."""
        self._replacements[provider] = replacement

    # --- run ---------------------------------------------------------------------------------------------------------

    @overload
    async def run(
        self, workflow: Workflow[NoInput, C], input: NoInput | None = None, *, signals: Signals = NO_SIGNALS
    ) -> JobHandle[C]: ...
    @overload
    async def run(self, workflow: Workflow[I, C], input: I, *, signals: Signals = NO_SIGNALS) -> JobHandle[C]: ...
    async def run(self, workflow: Workflow[Any, Any], input: Any = None, *, signals: Signals = NO_SIGNALS) -> Any:
        """Run a job to its end, or to where it waits for a person or a signal. Raises InputRefused, Deadlock.

        `signals`, payloads by name, are sent when the job waits for them. The loop of the test goes on meanwhile: the
        job has one of its own, in a thread.
        """
        return await asyncio.to_thread(self._run, workflow, input, signals)

    @overload
    def run_blocking(
        self, workflow: Workflow[NoInput, C], input: NoInput | None = None, *, signals: Signals = NO_SIGNALS
    ) -> JobHandle[C]: ...
    @overload
    def run_blocking(self, workflow: Workflow[I, C], input: I, *, signals: Signals = NO_SIGNALS) -> JobHandle[C]: ...
    def run_blocking(self, workflow: Workflow[Any, Any], input: Any = None, *, signals: Signals = NO_SIGNALS) -> Any:
        """`run` for a test that is no coroutine."""
        _refuse_in_event_loop("run")
        return self._run(workflow, input, signals)

    async def resume(self, workflow: Workflow[I, C], job_id: str, *, by: str = "tester") -> JobHandle[C]:
        """Run a job on that waits for a person or a signal. Raises WrongState where it has ended."""
        return await asyncio.to_thread(self._resume, workflow, job_id, by)

    def resume_blocking(self, workflow: Workflow[I, C], job_id: str, *, by: str = "tester") -> JobHandle[C]:
        """`resume` for a test that is no coroutine."""
        _refuse_in_event_loop("resume")
        return self._resume(workflow, job_id, by)

    # --- crash safety ------------------------------------------------------------------------------------------------

    @overload
    async def assert_crash_safe(
        self,
        workflow: Workflow[NoInput, C],
        input: NoInput | None = None,
        *,
        effects: Effects | None = None,
        may_differ: MayDiffer = (),
        signals: Signals = NO_SIGNALS,
        only: str | None = None,
    ) -> JobHandle[C]: ...
    @overload
    async def assert_crash_safe(
        self,
        workflow: Workflow[I, C],
        input: I,
        *,
        effects: Effects | None = None,
        may_differ: MayDiffer = (),
        signals: Signals = NO_SIGNALS,
        only: str | None = None,
    ) -> JobHandle[C]: ...
    async def assert_crash_safe(self, workflow: Workflow[Any, Any], input: Any = None, **options: Any) -> Any:
        """Kill the job's worker after every single append and where a handler ran and nobody knows; resume; compare.

        The undisturbed job, if each of these ended as it did: status, results, context, and what it did to the outside
        world. `effects` is a list to which whatever stands for that world appends what it does, or a function that
        returns all it has done; order does not count. Raises AssertionError with the story of the first job that ended
        otherwise; `only` is the place that it names. `may_differ` names results and fields that are not compared.
        """
        return await asyncio.to_thread(self._check, workflow, input, **options)

    @overload
    def assert_crash_safe_blocking(
        self,
        workflow: Workflow[NoInput, C],
        input: NoInput | None = None,
        *,
        effects: Effects | None = None,
        may_differ: MayDiffer = (),
        signals: Signals = NO_SIGNALS,
        only: str | None = None,
    ) -> JobHandle[C]: ...
    @overload
    def assert_crash_safe_blocking(
        self,
        workflow: Workflow[I, C],
        input: I,
        *,
        effects: Effects | None = None,
        may_differ: MayDiffer = (),
        signals: Signals = NO_SIGNALS,
        only: str | None = None,
    ) -> JobHandle[C]: ...
    def assert_crash_safe_blocking(self, workflow: Workflow[Any, Any], input: Any = None, **options: Any) -> Any:
        """`assert_crash_safe` for a test that is no coroutine."""
        _refuse_in_event_loop("assert_crash_safe")
        return self._check(workflow, input, **options)

    # --- in whichever thread -----------------------------------------------------------------------------------------

    def _run(self, workflow: Workflow[Any, Any], input: Any, signals: Signals) -> JobHandle[Any]:
        checked = checked_input(workflow, input)
        with self._running:
            with self._process(workflow) as process:
                job_id = process.create_and_run(checked)
            while send_awaited(self._around, job_id, signals):
                with self._process(workflow) as process:
                    process.claim_and_run(job_id)
        return self._handle(load(self.store, job_id).state, workflow)

    def _handle(self, state: State, workflow: Workflow[Any, Any]) -> JobHandle[Any]:
        return JobHandle(state, workflow, vault_of(self.store, state["job_id"], workflow))

    def _resume(self, workflow: Workflow[Any, Any], job_id: str, by: str) -> JobHandle[Any]:
        with self._running, self._process(workflow) as process:
            process.claim_and_run(job_id, resume_by=by)
        return self._handle(load(self.store, job_id).state, workflow)

    @contextmanager
    def _process(self, workflow: Workflow[Any, Any]) -> Iterator[Process]:
        process = Process(self._around, workflow, Fate())
        try:
            yield process
        finally:
            process.bury()

    def _check(
        self,
        workflow: Workflow[Any, Any],
        input: Any,
        *,
        effects: Effects | None = None,
        may_differ: MayDiffer = (),
        signals: Signals = NO_SIGNALS,
        only: str | None = None,
    ) -> JobHandle[Any]:
        names = {each.key if isinstance(each, Produces) else each for each in may_differ}
        checked = checked_input(workflow, input)
        with self._running:
            state = CrashSafety(self._around, workflow, checked, effects, names, signals).check(only)
        return self._handle(state, workflow)


def _refuse_in_event_loop(called: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{called}_blocking() was called inside a running event loop: write `await steplog.{called}(…)`")
