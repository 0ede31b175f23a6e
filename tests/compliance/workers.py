"""A worker's life: known as alive, beating, ended once, its id never used again."""

from __future__ import annotations

from datetime import datetime

import pytest
from compliance.log_case import LEASE_S, LogCase

from steplog.eventstore.errors import WorkerDead
from steplog.eventstore.store import WorkerIdentity


class WorkersCompliance(LogCase):
    def test_registered_worker_is_listed_alive(self) -> None:
        identity = WorkerIdentity("w1", "host", 4242, None, None, None)
        self.store.register_worker(identity, LEASE_S)
        (worker,) = self.store.workers()
        assert (worker.identity, worker.state) == (identity, "alive")
        assert datetime.fromisoformat(worker.started_at).tzinfo is not None

    def test_workers_are_listed_newest_first(self) -> None:
        workers = [self.new_worker() for _ in range(3)]
        assert [worker.identity.worker_id for worker in self.store.workers()] == workers[::-1]

    def test_registration_sent_twice_is_stored_once(self) -> None:
        identity = self.build.worker()
        self.store.register_worker(identity, LEASE_S)
        self.store.register_worker(identity, LEASE_S)
        assert [worker.identity for worker in self.store.workers()] == [identity]

    def test_id_of_a_worker_that_has_ended_is_not_used_again(self) -> None:
        identity = self.build.worker()
        self.store.register_worker(identity, LEASE_S)
        self.store.retire_worker(identity.worker_id)
        with pytest.raises(WorkerDead):
            self.store.register_worker(identity, LEASE_S)
        assert [worker.state for worker in self.store.workers()] == ["stopped"]

    def test_beat_brings_back_the_heads_of_the_workers_own_jobs(self) -> None:
        job_id, claim = self.long_job(4)
        self.owned_job()
        assert self.store.beat(claim.worker_id, LEASE_S).jobs == {job_id: (6, 1)}

    def test_beat_of_a_worker_without_jobs_brings_back_the_time(self) -> None:
        beat = self.store.beat(self.new_worker(), LEASE_S)
        assert beat.jobs == {}
        assert datetime.fromisoformat(beat.now).tzinfo is not None
        assert (len(beat.now), beat.now[-1]) == (len(self.store.now()), "Z")

    def test_beat_shows_a_job_given_back_or_taken_by_its_absence(self) -> None:
        job_id, claim = self.owned_job()
        self.stored(self.build.append(job_id, self.position(job_id), claim, "last", release=True))
        assert self.store.beat(claim.worker_id, LEASE_S).jobs == {}

    def test_beat_of_a_worker_that_does_not_live_is_refused(self) -> None:
        retired = self.new_worker()
        self.store.retire_worker(retired)
        for worker_id in (retired, self.build.clock.new_id()):
            with pytest.raises(WorkerDead) as refused:
                self.store.beat(worker_id, LEASE_S)
            assert refused.value.worker_id == worker_id

    def test_worker_can_be_retired_twice(self) -> None:
        worker_id = self.new_worker()
        self.store.retire_worker(worker_id)
        self.store.retire_worker(worker_id)
        assert [worker.state for worker in self.store.workers()] == ["stopped"]

    def test_worker_declared_dead_is_not_listed_as_stopped_when_it_retires(self) -> None:
        elsewhere, job_id = self.harness.reopen(), self.new_job()
        former = self.claim(job_id, store=elsewhere)
        self.harness.end_process(elsewhere, former.worker_id)
        self.claim(job_id)
        self.store.retire_worker(former.worker_id)
        assert [worker.state for worker in self.store.workers()] == ["alive", "dead"]
