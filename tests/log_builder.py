"""Jobs and sealed events for tests of stores, made without the engine and its folds."""

from __future__ import annotations

from typing import Any

from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.events import ContextChanged, EventData, JobClaimed, JobCreated, JobForked, NewEvent
from steplog.eventstore.store import (
    Append,
    Claim,
    ClaimRule,
    Head,
    HeadColumns,
    NewJob,
    Proposal,
    Rule,
    WorkerIdentity,
)


class LogBuilder:
    """Makes what a store takes, on a clock of its own."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def columns(self, **changes: Any) -> HeadColumns:
        now = self.clock.now()
        plain = HeadColumns(
            workflow="registration",
            status="queued",
            created_at=now,
            updated_at=now,
            mode="engine",
            phase=None,
            last_error=None,
            failed_sub_step=None,
            wake_at=None,
            ended_at=None,
            done=0,
            total=0,
            key=None,
            tags={},
            priority=0,
            batch_id=None,
        )
        return plain._replace(**changes)

    def seal(self, job_id: str, after: Position, *data: EventData) -> list[NewEvent]:
        return seal(job_id, after, data, self.clock.now(), self.clock)

    def job(self, *, input_hash: str = "input", claim: Claim | None = None, **columns: Any) -> NewJob:
        """A job of one event; its head has the columns given."""
        job_id = self.clock.new_id()
        head = self.columns(**columns)
        created = JobCreated(workflow=head.workflow, workflow_version="1", plan={"phases": []}, key=head.key)
        return NewJob(job_id, self.seal(job_id, Position(), created), head, input_hash, claim)

    def forked(self, parent: Position, parent_id: str) -> JobForked:
        """The first event of a fork of a job without sub-steps."""
        return JobForked(
            workflow="registration",
            workflow_version="1",
            plan={"phases": []},
            from_job_id=parent_id,
            from_version=parent.version,
            parent_hash=parent.hash,
            inherited=0,
            by="anna",
        )

    def append(self, job_id: str, expected: Position, claim: Claim, *values: Any, release: bool = False) -> Append:
        """The owner's append of one ContextChanged per value."""
        events = self.seal(job_id, expected, *[changed(value) for value in values])
        return Append(job_id, expected, claim, events, self.columns(status="running"), release)

    def claiming(self, *data: EventData) -> ClaimRule:
        """A claim's rule: JobClaimed and the facts given."""

        def rule(head: Head, tail: object, claim: Claim) -> Proposal:
            claimed = JobClaimed(
                worker_id=claim.worker_id, epoch=claim.epoch, claim_id=claim.claim_id, reason="takeover"
            )
            return Proposal(self.seal(head.job_id, head.position, claimed, *data), self.columns(status="running"))

        return rule

    def proposing(self, *data: EventData, **columns: Any) -> Rule:
        """A rule that appends the facts given, whatever came before."""

        def rule(head: Head, tail: object) -> Proposal:
            return Proposal(self.seal(head.job_id, head.position, *data), self.columns(**columns))

        return rule

    def worker(self, worker_id: str | None = None) -> WorkerIdentity:
        return WorkerIdentity(worker_id or self.clock.new_id(), "host", 4242, "boot", "namespace", "17")


def changed(value: Any) -> ContextChanged:
    return ContextChanged(set={"value": value})


def after(item: Append) -> Position:
    """Where the log ends once the append is stored."""
    return end_of(item.events, item.expected)
