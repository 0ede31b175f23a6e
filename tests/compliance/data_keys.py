"""Data keys: stored with their job, kept once, wrapped anew, destroyed for good by the append that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from compliance.log_case import LogCase

from steplog.eventstore.data_keys import DataKey
from steplog.eventstore.errors import KeyConflict
from steplog.eventstore.events import Event, SecretsErased
from steplog.eventstore.store import Head, NewJob, Proposal


class DataKeysCompliance(LogCase):
    def job_with_key(self, wrapped: str = "k1:one", **columns: Any) -> NewJob:
        return replace(self.build.job(**columns), data_key=wrapped)

    def erase(self, job_id: str) -> None:
        propose = self.build.proposing(SecretsErased(by="anna", reason="asked to"))

        def rule(head: Head, tail: Sequence[Event]) -> Proposal:
            proposal = propose(head, tail)
            assert proposal is not None
            return replace(proposal, erases=True)

        self.store.append_locked(job_id, self.position(job_id), rule)

    def test_key_is_stored_with_its_job(self) -> None:
        one, two = self.job_with_key("k1:one"), self.job_with_key("k1:two")
        self.store.create(one)
        self.store.create_many([self.build.job(), two])
        assert self.store.data_keys.find(one.job_id) == DataKey(one.job_id, "k1:one")
        assert self.harness.reopen().data_keys.find(two.job_id) == DataKey(two.job_id, "k1:two")
        assert self.store.data_keys.find(self.new_job()) is None

    def test_job_that_is_not_stored_leaves_no_key(self) -> None:
        self.new_job(key="r42")
        found, refused = self.job_with_key(key="r42"), replace(self.job_with_key(key="r42"), input_hash="another")
        self.store.create(found)
        with pytest.raises(KeyConflict):
            self.store.create(refused)
        self.store.create_many([found, refused])
        assert self.store.data_keys.after() == []

    def test_first_key_of_a_job_counts(self) -> None:
        job_id = self.new_job()
        assert self.store.data_keys.add(job_id, "k1:first") == DataKey(job_id, "k1:first")
        assert self.store.data_keys.add(job_id, "k1:second") == DataKey(job_id, "k1:first")

    def test_key_is_wrapped_anew_unless_it_changed(self) -> None:
        job_id = self.new_job()
        before = self.store.data_keys.add(job_id, "k1:x")
        assert self.store.data_keys.rewrap(before, "k2:x")
        assert not self.store.data_keys.rewrap(before, "k3:x")
        assert self.store.data_keys.find(job_id) == DataKey(job_id, "k2:x")

    def test_keys_come_in_pages(self) -> None:
        jobs = sorted(self.store.create(self.job_with_key()) for _ in range(5))
        assert [key.job_id for key in self.store.data_keys.after(limit=2)] == jobs[:2]
        assert [key.job_id for key in self.store.data_keys.after(jobs[1])] == jobs[2:]

    def test_destroyed_key_does_not_come_back(self) -> None:
        job_id = self.store.create(self.job_with_key())
        before = self.store.data_keys.find(job_id)
        assert before is not None
        self.erase(job_id)
        gone = self.store.data_keys.find(job_id)
        assert gone is not None
        assert gone.wrapped is None
        assert gone.erased_at is not None
        assert self.store.data_keys.add(job_id, "k1:again") == gone
        assert not self.store.data_keys.rewrap(before, "k2:again")
        self.erase(job_id)
        assert self.store.data_keys.find(job_id) == gone

    def test_job_that_never_had_a_key_gets_none_after_it_was_erased(self) -> None:
        job_id = self.new_job()
        self.erase(job_id)
        assert self.store.data_keys.add(job_id, "k1:late").wrapped is None

    def test_rule_that_is_refused_destroys_nothing(self) -> None:
        job_id = self.store.create(self.job_with_key())

        def refuse(head: Head, tail: Sequence[Event]) -> Proposal:
            raise KeyError

        with pytest.raises(KeyError):
            self.store.append_locked(job_id, self.position(job_id), refuse)
        assert self.store.data_keys.find(job_id) == DataKey(job_id, "k1:one")
