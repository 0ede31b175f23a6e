"""Creating jobs: idempotent by event ids and by key."""

from __future__ import annotations

import pytest
from compliance.in_parallel import in_parallel
from compliance.log_case import LogCase
from log_builder import changed

from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.errors import JobNotFound, KeyConflict, StoreError, WorkerDead
from steplog.eventstore.store import Claim, Code, HeadColumns, NewJob

EVERY_COLUMN = HeadColumns(
    workflow="registration",
    status="failed",
    created_at="2026-01-01T00:00:00.000001Z",
    updated_at="2026-01-02T00:00:00.000002Z",
    mode="recorded",
    phase="phase2",
    last_error="TimeoutError: 'nobody' answered; ünïcode",
    failed_sub_step="phase2/menu_import",
    wake_at="2026-01-03T00:00:00.000003Z",
    ended_at="2026-01-04T00:00:00.000004Z",
    done=3,
    total=12,
    key="r42",
    tags={"city": "Zürich", 'quo"te': "it's"},
    priority=-7,
    batch_id="batch-1",
)


class CreatingCompliance(LogCase):
    def test_created_job_has_its_events_and_a_head_at_their_end(self) -> None:
        job = self.build.job()
        assert self.store.create(job) == job.job_id
        head = self.store.head(job.job_id)
        assert head.position == end_of(job.events, Position())
        assert (head.epoch, head.claim_id, head.worker_id) == (0, None, None)
        assert [event.event_id for event in self.log(job.job_id)] == [event.event_id for event in job.events]

    def test_every_column_of_a_head_comes_back_as_it_went_in(self) -> None:
        made = self.build.job(key="r42")
        self.store.create(NewJob(made.job_id, made.events, EVERY_COLUMN, "input"))
        assert self.store.head(made.job_id).columns == EVERY_COLUMN

    def test_a_fork_is_read_from_its_parents_hash_on(self) -> None:
        parent = self.build.job()
        self.store.create(parent)
        at = end_of(parent.events, Position())
        job_id = self.build.clock.new_id()
        forked = self.build.forked(at, parent.job_id)
        events = self.build.seal(job_id, Position(0, at.hash), forked, changed(1))
        self.store.create(NewJob(job_id, events, self.build.columns(), "input"))
        self.store.append_locked(job_id, Position(), self.build.proposing(changed(2)))
        assert [event.type for event in self.log(job_id)] == ["JobForked", "ContextChanged", "ContextChanged"]
        assert [event.version for event in self.store.read(job_id, 1, 2)] == [2]

    def test_same_job_again_is_not_stored_twice(self) -> None:
        job = self.build.job()
        assert self.store.create(job) == self.store.create(job)
        assert len(self.log(job.job_id)) == 1

    def test_same_job_again_after_more_events_changes_nothing(self) -> None:
        job = self.build.job()
        self.store.create(job)
        self.claim(job.job_id)
        head = self.store.head(job.job_id)
        assert self.store.create(job) == job.job_id
        assert self.store.head(job.job_id) == head

    def test_job_id_with_other_events_is_refused(self) -> None:
        job, other = self.build.job(), self.build.job()
        self.store.create(job)
        events = self.build.job().events
        with pytest.raises(StoreError):
            self.store.create(NewJob(job.job_id, events, other.columns, "input"))
        assert [event.event_id for event in self.log(job.job_id)] == [event.event_id for event in job.events]

    def test_key_with_same_input_answers_the_job_that_has_it(self) -> None:
        first, second = self.build.job(key="r42"), self.build.job(key="r42")
        self.store.create(first)
        assert self.store.create(second) == first.job_id
        with pytest.raises(JobNotFound):
            self.store.head(second.job_id)

    def test_key_with_other_input_is_refused_and_nothing_is_stored(self) -> None:
        first = self.build.job(key="r42")
        second = self.build.job(key="r42", input_hash="another input")
        self.store.create(first)
        with pytest.raises(KeyConflict) as refused:
            self.store.create(second)
        assert (refused.value.workflow, refused.value.key) == ("registration", "r42")
        assert refused.value.job_id == first.job_id
        with pytest.raises(JobNotFound):
            self.store.head(second.job_id)

    def test_key_belongs_to_its_workflow(self) -> None:
        first = self.new_job(key="r42")
        second = self.new_job(key="r42", workflow="import")
        assert first != second
        assert self.store.job_of_key("registration", "r42") == [first]
        assert self.store.job_of_key("import", "r42") == [second]
        assert sorted(self.store.job_of_key(None, "r42")) == sorted([first, second])

    def test_unknown_key_belongs_to_no_job(self) -> None:
        self.new_job(key="r42")
        assert self.store.job_of_key(None, "r4") == []
        assert self.store.job_of_key("import", "r42") == []

    def test_jobs_without_a_key_are_all_different(self) -> None:
        assert self.new_job() != self.new_job()

    def test_job_created_with_a_claim_is_its_workers_from_the_start(self) -> None:
        claim = Claim(self.new_worker(), 1, "c1")
        job_id = self.store.create(self.build.job(claim=claim))
        head = self.store.head(job_id)
        assert Claim(head.worker_id or "", head.epoch, head.claim_id or "") == claim
        assert self.code(self.build.append(job_id, head.position, claim, "value")) is Code.STORED

    def test_job_cannot_be_created_for_a_worker_that_does_not_live(self) -> None:
        retired = self.new_worker()
        self.store.retire_worker(retired)
        for worker_id in (retired, self.build.clock.new_id()):
            job = self.build.job(claim=Claim(worker_id, 1, "c1"))
            with pytest.raises(WorkerDead):
                self.store.create(job)
            with pytest.raises(JobNotFound):
                self.store.head(job.job_id)

    def test_many_jobs_are_created_in_order_and_what_stands_in_the_way_of_one_hurts_no_other(self) -> None:
        worker_id = self.new_worker()
        earlier = self.build.job(key="taken")
        self.store.create(earlier)
        owned = self.build.job(claim=Claim(worker_id, 1, "claim"))
        same = self.build.job(key="taken")
        other = self.build.job(key="taken", input_hash="other")
        twice = [self.build.job(key="twice"), self.build.job(key="twice")]
        stranger = self.build.job(claim=Claim(self.build.clock.new_id(), 1, "claim"))
        found = self.store.create_many([owned, same, other, *twice, stranger, earlier])
        assert [found[0], found[1], *found[3:5], found[6]] == [
            owned.job_id,
            earlier.job_id,
            twice[0].job_id,
            twice[0].job_id,
            earlier.job_id,
        ]
        assert isinstance(found[2], KeyConflict)
        assert isinstance(found[5], WorkerDead)
        assert self.store.head(owned.job_id).worker_id == worker_id
        for job in (same, other, twice[1], stranger):
            with pytest.raises(JobNotFound):
                self.store.head(job.job_id)

    def test_threads_that_create_many_with_the_same_keys_make_one_job_each(self) -> None:
        def create(number: int) -> list[object]:
            keys = [f"key {key}" for key in (range(20) if number % 2 else reversed(range(20)))]
            return list(self.store.create_many([self.build.job(key=key) for key in keys]))

        found = in_parallel(8, create)
        assert len({job_id for ids in found for job_id in ids}) == 20

    def test_threads_with_one_key_make_one_job(self) -> None:
        jobs = [self.build.job(key="r42") for _ in range(16)]
        ids = in_parallel(16, lambda number: self.store.create(jobs[number]))
        assert len(set(ids)) == 1
        assert self.store.job_of_key(None, "r42") == ids[:1]
