"""Everybody else's append: a rule decides while the head is locked; requests are idempotent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from compliance.in_parallel import in_parallel
from compliance.log_case import LogCase
from log_builder import changed

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, JobNotFound
from steplog.eventstore.events import Event
from steplog.eventstore.store import Code, Head, Proposal


class RefusedByRule(Exception):
    """The rule says no."""


def refuse(head: Head, *others: object) -> Proposal:
    raise RefusedByRule


class AppendingLockedCompliance(LogCase):
    def test_rule_sees_the_head_and_what_came_behind_the_known_version(self) -> None:
        job_id, _ = self.long_job(3)
        log, seen = self.log(job_id), []

        def rule(head: Head, tail: Sequence[Event]) -> None:
            seen.append((head, list(tail)))

        for event in log:
            known = Position(event.version, event.hash, event.recorded_at)
            assert self.store.append_locked(job_id, known, rule) == len(log)
        assert seen == [(self.store.head(job_id), log[event.version :]) for event in log]

    def test_proposal_is_stored_with_its_columns_and_the_owner_stays(self) -> None:
        job_id, claim = self.owned_job()
        due = "2026-05-05T05:05:05.000000Z"
        rule = self.build.proposing(changed("one"), changed("two"), status="waiting", wake_at=due)
        assert self.store.append_locked(job_id, self.position(job_id), rule) == 4
        head = self.store.head(job_id)
        assert (head.version, head.columns.status, head.columns.wake_at) == (4, "waiting", due)
        assert (head.worker_id, head.epoch, head.claim_id) == (claim.worker_id, claim.epoch, claim.claim_id)
        assert self.code(self.build.append(job_id, head.position, claim, "owner")) is Code.STORED
        assert self.values(job_id) == ["one", "two", "owner"]

    def test_rule_that_proposes_nothing_changes_nothing(self) -> None:
        job_id, _ = self.owned_job()
        head = self.store.head(job_id)
        assert self.store.append_locked(job_id, head.position, lambda head, tail: None) == head.version
        assert self.store.head(job_id) == head

    def test_rule_that_raises_leaves_no_trace(self) -> None:
        job_id, _ = self.owned_job()
        head = self.store.head(job_id)
        with pytest.raises(RefusedByRule):
            self.store.append_locked(job_id, head.position, refuse, request_id="r1")
        assert self.store.head(job_id) == head
        accepted = self.build.proposing(changed("accepted"))
        assert self.store.append_locked(job_id, head.position, accepted, request_id="r1") == head.version + 1
        assert self.values(job_id) == ["accepted"]

    def test_request_sent_twice_is_stored_once(self) -> None:
        job_id, claim = self.owned_job()
        known = self.position(job_id)
        version = self.store.append_locked(job_id, known, self.build.proposing(changed("one")), request_id="r1")
        self.stored(self.build.append(job_id, self.position(job_id), claim, "owner"))
        assert self.store.append_locked(job_id, known, refuse, request_id="r1") == version
        assert self.values(job_id) == ["one", "owner"]

    def test_request_that_led_to_nothing_is_remembered_too(self) -> None:
        job_id, _ = self.owned_job()
        known = self.position(job_id)
        version = self.store.append_locked(job_id, known, lambda head, tail: None, request_id="r1")
        assert self.store.append_locked(job_id, known, refuse, request_id="r1") == version

    def test_request_ids_belong_to_their_job(self) -> None:
        for _ in range(2):
            job_id = self.new_job()
            rule = self.build.proposing(changed("one"))
            self.store.append_locked(job_id, self.position(job_id), rule, request_id="r1")
            assert self.values(job_id) == ["one"]

    def test_unknown_job_is_refused(self) -> None:
        with pytest.raises(JobNotFound):
            self.store.append_locked(self.build.clock.new_id(), Position(), refuse)

    def test_log_that_does_not_follow_from_the_known_position_is_refused(self) -> None:
        job_id, _ = self.long_job()
        head = self.store.head(job_id)
        for version in (2, head.version, head.version + 1):
            with pytest.raises(DamagedLog):
                self.store.append_locked(job_id, Position(version, "f" * 64), self.build.proposing(changed("lost")))
        assert self.store.head(job_id) == head

    def test_threads_append_one_behind_the_other(self) -> None:
        job_id = self.new_job()
        known = self.position(job_id)

        def append(number: int) -> int:
            return self.store.append_locked(job_id, known, self.build.proposing(changed(number)))

        assert sorted(in_parallel(16, append)) == list(range(2, 18))
        assert sorted(self.values(job_id)) == list(range(16))
