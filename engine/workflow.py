"""`Workflow`: a definition that can be run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from typing_extensions import TypeVar

from steplog.engine.context import Context
from steplog.engine.definition import CompensateOn, Definition
from steplog.engine.errors import DefinitionError
from steplog.engine.handle import JobHandle
from steplog.engine.jobs import checked_input, run_blocking, run_here
from steplog.engine.limits import limits_of
from steplog.engine.policies import Duration
from steplog.engine.schedules import Missed, schedule_of
from steplog.engine.step import NoInput
from steplog.engine.submitting import Batch, How, Submission, asubmit_inside, submit, submit_inside, submit_many
from steplog.eventstore.store import Store

if TYPE_CHECKING:
    from steplog.eventstore.postgres_submitting import AsyncConnection, Connection

I = TypeVar("I", default=NoInput)  # noqa: E741  # the field's usual letter for an input type
C = TypeVar("C", bound=Context, default=Context)
I_given = TypeVar("I_given")
C_given = TypeVar("C_given", bound=Context)


class Workflow(Definition[I, C]):
    """The declared shape of a job: phases of sub-steps, its input and its context."""

    @overload
    def __init__(
        self: Workflow[NoInput, Context],
        name: str,
        *,
        version: str = "1",
        deadline: Duration | None = None,
        compensate_on: Iterable[CompensateOn] = (),
    ) -> None: ...
    @overload
    def __init__(
        self: Workflow[NoInput, C_given],
        name: str,
        *,
        context: type[C_given],
        version: str = "1",
        deadline: Duration | None = None,
        compensate_on: Iterable[CompensateOn] = (),
    ) -> None: ...
    @overload
    def __init__(
        self: Workflow[I_given, Context],
        name: str,
        *,
        input: type[I_given],
        version: str = "1",
        deadline: Duration | None = None,
        compensate_on: Iterable[CompensateOn] = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        input: type[I],
        context: type[C],
        version: str = "1",
        deadline: Duration | None = None,
        compensate_on: Iterable[CompensateOn] = (),
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        input: type[Any] = NoInput,
        context: type[Any] = Context,
        version: str = "1",
        deadline: Duration | None = None,
        compensate_on: Iterable[CompensateOn] = (),
    ) -> None:
        """`deadline` is how long a job may take: after it, it fails and waits for a person.

        `compensate_on` names the ends, `failed` and `cancelled`, before which what has completed is undone by its
        compensations; such a job can then only be forked.
        """
        super().__init__(name, cast("type[I]", input), cast("type[C]", context), version, deadline, compensate_on)

    @overload
    def run(
        self: Workflow[NoInput, C],
        input: NoInput | None = None,
        *,
        key: str | None = None,
        store: Store | str | None = None,
    ) -> JobHandle[C]: ...
    @overload
    def run(self, input: I, *, key: str | None = None, store: Store | str | None = None) -> JobHandle[C]: ...
    def run(self, input: Any = None, *, key: str | None = None, store: Store | str | None = None) -> Any:
        """Run a job to its end or to where it waits for a person, and return it.

        `store` is a store or its URL; without it the one that the CLI would use. With a `key` seen before, that job is
        returned, resumed if its owner is dead. Raises InputRefused, KeyConflict, JobOwned, StoreError.
        """
        return run_blocking(self, input, key=key, store=store)

    @overload
    async def arun(
        self: Workflow[NoInput, C],
        input: NoInput | None = None,
        *,
        key: str | None = None,
        store: Store | str | None = None,
    ) -> JobHandle[C]: ...
    @overload
    async def arun(self, input: I, *, key: str | None = None, store: Store | str | None = None) -> JobHandle[C]: ...
    async def arun(self, input: Any = None, *, key: str | None = None, store: Store | str | None = None) -> Any:
        """`run` for use inside a running event loop."""
        return await run_here(self, input, key=key, store=store)

    @overload
    def submit(
        self: Workflow[NoInput, C],
        input: NoInput | None = None,
        *,
        store: Store | str | None = None,
        connection: Connection | None = None,
        schema: str = "steplog",
        **how: Unpack[How],
    ) -> str: ...
    @overload
    def submit(
        self,
        input: I,
        *,
        store: Store | str | None = None,
        connection: Connection | None = None,
        schema: str = "steplog",
        **how: Unpack[How],
    ) -> str: ...
    def submit(
        self,
        input: Any = None,
        *,
        store: Store | str | None = None,
        connection: Connection | None = None,
        schema: str = "steplog",
        **how: Unpack[How],
    ) -> str:
        """Store a job for any worker to run, and return its id; it is durable then.

        With a `connection` of psycopg's own the job is part of the transaction that is open there: it is there if and
        when the caller commits. `key`, `priority`, `run_at` and `tags` as `How` says. Raises InputRefused, KeyConflict,
        StoreError.
        """
        if connection is not None:
            return submit_inside(connection, self, input, schema=schema, **how)
        return submit(self, input, store=store, **how)

    @overload
    async def asubmit(
        self: Workflow[NoInput, C],
        input: NoInput | None = None,
        *,
        store: Store | str | None = None,
        connection: AsyncConnection | None = None,
        schema: str = "steplog",
        **how: Unpack[How],
    ) -> str: ...
    @overload
    async def asubmit(
        self,
        input: I,
        *,
        store: Store | str | None = None,
        connection: AsyncConnection | None = None,
        schema: str = "steplog",
        **how: Unpack[How],
    ) -> str: ...
    async def asubmit(
        self,
        input: Any = None,
        *,
        store: Store | str | None = None,
        connection: AsyncConnection | None = None,
        schema: str = "steplog",
        **how: Unpack[How],
    ) -> str:
        """`submit` for use inside a running event loop."""
        if connection is not None:
            return await asubmit_inside(connection, self, input, schema=schema, **how)
        return await asyncio.to_thread(lambda: submit(self, input, store=store, **how))

    def limit(
        self,
        *,
        concurrency: int | None = None,
        rate: int | None = None,
        every: Duration | None = None,
        per: str | None = None,
    ) -> None:
        """Let workers run at most so many jobs at once across the fleet, or begin `rate` of them in each `every`.

        With `per`, a tag's name, each of its values has that limit: `limit(concurrency=2, per="tenant")`. Jobs beyond
        it wait, and hold up no others. Raises DefinitionError.
        """
        self.limits = sorted(
            [*self.limits, *limits_of(concurrency, rate, every, per)], key=lambda limit: limit.period_s is not None
        )

    def schedule(
        self,
        cron: str,
        *,
        timezone: str = "UTC",
        input: I | None = None,
        name: str | None = None,
        missed: Missed = "latest",
    ) -> None:
        """Have workers submit a job at each time that the cron expression names in that zone, once among all of them.

        Of times that came while no worker ran, `missed` makes up for the `latest`, for `all`, or for none (`skip`). Two
        schedules of a workflow need two names. Needs the extra `steplog[cron]`. Raises DefinitionError, InputRefused.
        """
        declared = schedule_of(name, cron, timezone, input, missed)
        if any(declared.name == other.name for other in self.schedules):
            raise DefinitionError(f"schedule {declared.name!r} of {self.name} is declared twice")
        checked_input(self, input)
        self.schedules.append(declared)

    def submit_many(
        self, inputs: Iterable[I | Submission], *, batch: str | None = None, store: Store | str | None = None
    ) -> Batch:
        """Store many jobs as one batch, hundreds in each transaction, and return its id and theirs.

        Each is an input, or a Submission with a key, a priority and so on. A batch with a name of its own can be
        submitted again after a failure: what is there is not stored twice. Raises as `submit` does; the jobs of
        earlier chunks are stored then.
        """
        return submit_many(self, inputs, batch=batch, store=store)
