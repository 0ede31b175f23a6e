"""Ownership: one living owner a job, taken over only from the dead, fenced ever after."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from compliance.appending_locked import RefusedByRule, refuse
from compliance.in_parallel import in_parallel
from compliance.log_case import LEASE_S, LogCase
from log_builder import changed

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, JobNotFound, JobOwned, WorkerDead
from steplog.eventstore.events import Event
from steplog.eventstore.store import Claim, Code, Head, Proposal


class ClaimingCompliance(LogCase):
    def test_claim_of_a_job_nobody_owns_makes_the_worker_its_owner(self) -> None:
        job_id, worker_id = self.new_job(), self.new_worker()
        claim = self.store.claim(job_id, worker_id, self.position(job_id), self.build.claiming(changed("first")))
        head = self.store.head(job_id)
        assert (claim.worker_id, claim.epoch) == (worker_id, 1)
        assert (head.worker_id, head.epoch, head.claim_id) == (worker_id, 1, claim.claim_id)
        claimed = self.log(job_id)[1]
        assert (claimed.type, claimed.data["epoch"], claimed.data["claim_id"]) == ("JobClaimed", 1, claim.claim_id)
        assert self.values(job_id) == ["first"]
        assert self.code(self.build.append(job_id, head.position, claim, "owner")) is Code.STORED

    def test_rule_sees_the_head_before_the_claim_and_the_tail(self) -> None:
        job_id, worker_id = self.new_job(), self.new_worker()
        known = self.position(job_id)
        self.store.append_locked(job_id, known, self.build.proposing(changed("operator")))
        before, seen = self.store.head(job_id), []

        def rule(head: Head, tail: Sequence[Event], claim: Claim) -> Proposal:
            seen.append((head, [event.type for event in tail]))
            return self.build.claiming()(head, tail, claim)

        self.store.claim(job_id, worker_id, known, rule)
        assert seen == [(before, ["ContextChanged"])]

    def test_job_of_a_living_owner_is_refused(self) -> None:
        job_id, claim = self.owned_job()
        head = self.store.head(job_id)
        with pytest.raises(JobOwned) as refused:
            self.claim(job_id)
        assert (refused.value.job_id, refused.value.worker_id) == (job_id, claim.worker_id)
        assert self.store.head(job_id) == head

    def test_living_owner_in_another_process_is_not_robbed(self) -> None:
        job_id = self.new_job()
        self.claim(job_id, store=self.harness.reopen())
        with pytest.raises(JobOwned):
            self.claim(job_id)

    def test_job_of_a_retired_owner_is_taken_over_at_once(self) -> None:
        job_id, former = self.owned_job()
        self.store.retire_worker(former.worker_id)
        claim = self.claim(job_id)
        assert claim.epoch == former.epoch + 1
        assert claim.claim_id != former.claim_id

    def test_job_of_a_dead_owner_is_taken_over_and_the_owner_is_declared_dead(self) -> None:
        elsewhere, job_id = self.harness.reopen(), self.new_job()
        former = self.claim(job_id, store=elsewhere)
        self.harness.end_process(elsewhere, former.worker_id)
        claim = self.claim(job_id)
        assert claim.epoch == former.epoch + 1
        states = {worker.identity.worker_id: worker.state for worker in self.store.workers()}
        assert states == {former.worker_id: "dead", claim.worker_id: "alive"}
        with pytest.raises(WorkerDead):
            self.store.beat(former.worker_id, LEASE_S)

    def test_nothing_of_the_former_owner_enters_the_log_after_a_takeover(self) -> None:
        elsewhere, job_id = self.harness.reopen(), self.new_job()
        former = self.claim(job_id, store=elsewhere)
        before = self.position(job_id)
        self.harness.end_process(elsewhere, former.worker_id)
        self.claim(job_id)
        for position in (before, self.position(job_id)):
            assert self.code(self.build.append(job_id, position, former, "zombie")) is Code.FENCED
        assert self.values(job_id) == []

    def test_every_job_of_a_dead_owner_can_be_taken(self) -> None:
        elsewhere = self.harness.reopen()
        former = self.new_worker(elsewhere)
        jobs = [self.new_job() for _ in range(3)]
        for job_id in jobs:
            self.claim(job_id, former, elsewhere)
        self.harness.end_process(elsewhere, former)
        assert [self.claim(job_id).epoch for job_id in jobs] == [2, 2, 2]

    def test_released_job_can_be_claimed_by_another(self) -> None:
        job_id, former = self.owned_job()
        self.stored(self.build.append(job_id, self.position(job_id), former, "last", release=True))
        assert self.claim(job_id).epoch == former.epoch + 1

    def test_owner_that_claims_anew_fences_its_former_claim(self) -> None:
        job_id, former = self.owned_job()
        claim = self.claim(job_id, former.worker_id)
        assert (claim.worker_id, claim.epoch) == (former.worker_id, former.epoch + 1)
        assert self.code(self.build.append(job_id, self.position(job_id), former, "former")) is Code.FENCED
        assert self.code(self.build.append(job_id, self.position(job_id), claim, "anew")) is Code.STORED

    def test_worker_that_does_not_live_cannot_claim(self) -> None:
        job_id, retired = self.new_job(), self.new_worker()
        self.store.retire_worker(retired)
        for worker_id in (retired, self.build.clock.new_id()):
            with pytest.raises(WorkerDead):
                self.claim(job_id, worker_id)
        assert self.position(job_id).version == 1

    def test_unknown_job_cannot_be_claimed(self) -> None:
        with pytest.raises(JobNotFound):
            self.store.claim(self.build.clock.new_id(), self.new_worker(), Position(), refuse)

    def test_rule_that_raises_leaves_no_trace(self) -> None:
        elsewhere, job_id = self.harness.reopen(), self.new_job()
        former = self.claim(job_id, store=elsewhere)
        self.harness.end_process(elsewhere, former.worker_id)
        head, worker_id = self.store.head(job_id), self.new_worker()
        with pytest.raises(RefusedByRule):
            self.store.claim(job_id, worker_id, head.position, refuse)
        assert self.store.head(job_id) == head
        assert self.claim(job_id, worker_id).epoch == former.epoch + 1

    def test_log_that_does_not_follow_from_the_known_position_cannot_be_claimed(self) -> None:
        job_id, worker_id = self.new_job(), self.new_worker()
        head = self.store.head(job_id)
        with pytest.raises(DamagedLog):
            self.store.claim(job_id, worker_id, Position(1, "f" * 64), self.build.claiming())
        assert self.store.head(job_id) == head

    def test_threads_that_claim_one_job_have_one_winner(self) -> None:
        job_id = self.new_job()
        workers = [self.new_worker() for _ in range(16)]
        known = self.position(job_id)

        def claim(number: int) -> Claim | None:
            try:
                return self.store.claim(job_id, workers[number], known, self.build.claiming())
            except JobOwned:
                return None

        (winner,) = [won for won in in_parallel(16, claim) if won]
        head = self.store.head(job_id)
        assert (head.version, head.epoch, head.worker_id) == (2, 1, winner.worker_id)
