"""Finding work and claiming it in one go: what is due and nobody's, each job by one worker, nothing of the past."""

from __future__ import annotations

import pytest
from compliance.in_parallel import in_parallel
from compliance.log_case import LogCase
from log_builder import after, changed

from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.clock import later
from steplog.eventstore.errors import DamagedLog, WorkerDead
from steplog.eventstore.events import JobClaimed
from steplog.eventstore.store import Answer, Append, Claim, Code, Head, Proposal, SlotWanted, WorkQuery


class WorkingCompliance(LogCase):
    def due(self, *workflows: str, limit: int = 50, refused: dict[str, int] | None = None) -> list[str]:
        query = WorkQuery(workflows or ("registration",), limit, refused or {})
        return [head.job_id for head in self.store.look_for_work(query).due]

    def left_behind(self, *, refused: dict[str, int] | None = None) -> list[str]:
        work = self.store.look_for_work(WorkQuery(("registration",), 50, refused or {}))
        return [head.job_id for head in work.left_behind]

    def due_job(self, seconds: float = -10.0, **columns: object) -> str:
        """A job nobody owns that falls due so many seconds from now."""
        return self.new_job(wake_at=later(self.store.now(), seconds), **columns)

    def claiming(self, job_id: str, worker_id: str) -> Append:
        """The worker's claim of a job nobody owns."""
        head = self.store.head(job_id)
        claim = Claim(worker_id, head.epoch + 1, self.build.clock.new_id())
        claimed = JobClaimed(worker_id=worker_id, epoch=claim.epoch, claim_id=claim.claim_id, reason="first")
        events = self.build.seal(job_id, head.position, claimed)
        return Append(job_id, head.position, claim, events, self.build.columns(status="running"))

    # --- looking -----------------------------------------------------------------------------------------------------

    def test_due_jobs_come_by_priority_and_then_by_time(self) -> None:
        late, early = self.due_job(-10.0), self.due_job(-20.0)
        urgent = self.due_job(-5.0, priority=7)
        patient = self.due_job(-30.0, priority=-3)
        assert self.due() == [urgent, early, late, patient]

    def test_each_workflow_is_looked_at_up_to_the_limit(self) -> None:
        first = [self.due_job(-20.0 + number) for number in range(3)]
        other = self.due_job(-10.0, workflow="billing")
        assert self.due("registration", "billing", limit=2) == [*first[:2], other]
        assert self.due("billing") == [other]

    def test_what_sleeps_is_not_due_and_tells_when_it_will_be(self) -> None:
        sleeping, _ = self.due_job(60.0, priority=5), self.due_job(90.0)
        ready = self.due_job()
        work = self.store.look_for_work(WorkQuery(("registration",)))
        assert [head.job_id for head in work.due] == [ready]
        assert work.next_at == self.store.head(sleeping).columns.wake_at
        assert work.next_at is not None
        assert work.now < work.next_at

    def test_jobs_that_wait_for_nothing_or_are_owned_are_no_work(self) -> None:
        self.new_job()
        self.owned_job()
        work = self.store.look_for_work(WorkQuery(("registration",)))
        assert (work.due, work.left_behind, work.next_at) == ([], [], None)

    def test_a_refused_job_is_no_work_until_it_changes(self) -> None:
        refused, other = self.due_job(-20.0), self.due_job()
        assert self.due(refused={refused: 1}, limit=1) == [other]
        assert self.due(refused={refused: 2}, limit=1) == [refused]

    def test_jobs_of_owners_that_died_or_ended_are_left_behind(self) -> None:
        elsewhere = self.harness.reopen()
        former, retired = self.new_worker(elsewhere), self.new_worker()
        of_the_dead, of_the_retired = self.new_job(), self.new_job()
        self.claim(of_the_dead, former, elsewhere)
        self.claim(of_the_retired, retired)
        self.owned_job()
        assert self.left_behind() == []
        self.store.retire_worker(retired)
        self.harness.end_process(elsewhere, former)
        assert sorted(self.left_behind()) == sorted([of_the_dead, of_the_retired])
        assert self.left_behind(refused={of_the_dead: 2}) == [of_the_retired]

    def test_an_abandoned_job_has_no_owner_and_only_its_claim_can_abandon_it(self) -> None:
        job_id, claim = self.owned_job()
        self.store.abandon(job_id, Claim(claim.worker_id, claim.epoch, "another"))
        assert self.store.head(job_id).worker_id == claim.worker_id
        self.store.abandon(job_id, claim)
        head = self.store.head(job_id)
        assert (head.worker_id, head.claim_id, head.epoch, head.version) == (None, None, 1, 2)
        assert self.code(self.build.append(job_id, head.position, claim, "zombie")) is Code.FENCED
        assert self.claim(job_id).epoch == 2

    def test_what_waits_longest_and_who_owns_how_much_is_told(self) -> None:
        late, early = self.due_job(-10.0, workflow="billing"), self.due_job(-20.0)
        self.due_job(60.0)
        worker_id = self.new_worker()
        for _ in range(2):
            self.claim(self.due_job(-30.0), worker_id)
        assert [head.job_id for head in self.store.longest_ready(5)] == [early, late]
        assert [head.job_id for head in self.store.longest_ready(1)] == [early]
        assert self.store.owned_counts() == {worker_id: 2}

    # --- claiming many -----------------------------------------------------------------------------------------------

    def test_jobs_are_claimed_together(self) -> None:
        worker_id, jobs = self.new_worker(), [self.due_job() for _ in range(3)]
        items = [self.claiming(job_id, worker_id) for job_id in jobs]
        assert [(answer.job_id, answer.code, answer.version) for answer in self.store.claim_many(items)] == [
            (job_id, Code.STORED, 2) for job_id in jobs
        ]
        for item in items:
            head = self.store.head(item.job_id)
            assert (head.worker_id, head.epoch, head.claim_id) == (worker_id, 1, item.claim.claim_id)
            assert self.code(self.build.append(item.job_id, after(item), item.claim, "owner")) is Code.STORED
        assert self.due() == []

    def test_a_job_that_went_on_or_is_owned_is_not_claimed_and_others_are(self) -> None:
        worker_id = self.new_worker()
        gone_on, owned, free = self.due_job(), self.due_job(), self.due_job()
        items = [self.claiming(job_id, worker_id) for job_id in (gone_on, owned, free)]
        self.store.append_locked(gone_on, self.position(gone_on), self.build.proposing(changed(1)))
        self.claim(owned)
        before = self.store.head(owned)
        codes = [answer.code for answer in self.store.claim_many(items)]
        assert codes[2] is Code.STORED
        assert Code.STORED not in codes[:2]
        assert self.store.head(owned) == before
        assert self.store.head(gone_on).worker_id is None

    def test_claims_sent_twice_are_stored_once(self) -> None:
        worker_id, job_id = self.new_worker(), self.due_job()
        item = self.claiming(job_id, worker_id)
        for _ in range(2):
            (answer,) = self.store.claim_many([item])
            assert answer.code is Code.STORED
        assert self.store.head(job_id).version == 2
        assert end_of(item.events, Position()).version == 2

    def test_a_worker_that_does_not_live_claims_nothing(self) -> None:
        retired, job_id = self.new_worker(), self.due_job()
        item = self.claiming(job_id, retired)
        self.store.retire_worker(retired)
        with pytest.raises(WorkerDead):
            self.store.claim_many([item])
        assert self.store.head(job_id).worker_id is None

    def test_of_workers_that_claim_the_same_jobs_each_job_has_one(self) -> None:
        jobs = [self.due_job() for _ in range(4)]
        workers = [self.new_worker() for _ in range(8)]
        batches = [[self.claiming(job_id, worker_id) for job_id in jobs] for worker_id in workers]
        answers = in_parallel(8, lambda number: self.store.claim_many(batches[number]))
        won = [answer.job_id for of_worker in answers for answer in of_worker if answer.code is Code.STORED]
        assert sorted(won) == sorted(jobs)
        assert [self.store.head(job_id).version for job_id in jobs] == [2, 2, 2, 2]

    def test_heads_are_found_by_their_ids_as_far_as_there_are_such_jobs(self) -> None:
        jobs = [self.long_job(count)[0] for count in (1, 2)]
        found = self.store.heads_of([*jobs, self.build.clock.new_id()])
        assert {head.job_id: head for head in found} == {job_id: self.store.head(job_id) for job_id in jobs}
        assert self.store.heads_of([]) == []

    def test_logs_are_read_together_and_one_that_is_damaged_says_so(self) -> None:
        jobs = [self.long_job(3)[0], self.new_job(), self.long_job(2)[0]]
        self.harness.rewrite_rows(jobs[2], lambda rows: rows[:-1])
        heads = [self.store.head(job_id) for job_id in jobs]
        logs = self.store.read_heads(heads)
        assert [logs[job_id] for job_id in jobs[:2]] == [self.log(job_id) for job_id in jobs[:2]]
        assert isinstance(logs[jobs[2]], DamagedLog)
        assert self.store.read_heads([]) == {}

    # --- limits ------------------------------------------------------------------------------------------------------

    def claim_with(self, worker_id: str, slots: list[SlotWanted], count: int = 1) -> list[Answer]:
        """Claims of that many new jobs at once, each taking the slots."""
        items = [self.claiming(self.due_job(), worker_id) for _ in range(count)]
        return self.store.claim_many(items, {item.job_id: slots for item in items})

    def test_a_slot_is_held_while_its_job_is_owned_and_free_when_it_is_not(self) -> None:
        worker_id, limit = self.new_worker(), [SlotWanted("limit", 2)]
        answers = self.claim_with(worker_id, limit, 3)
        assert sorted(answer.code for answer in answers) == [Code.LIMITED, Code.STORED, Code.STORED]
        (refused,) = [answer for answer in answers if answer.code is Code.LIMITED]
        assert (refused.limit, refused.version) == ("limit", 1)
        assert self.store.head(refused.job_id).worker_id is None
        assert self.claim_with(worker_id, [SlotWanted("other", 1)])[0].code is Code.STORED
        holder = next(answer.job_id for answer in answers if answer.code is Code.STORED)
        head = self.store.head(holder)
        self.store.abandon(holder, Claim(worker_id, head.epoch, head.claim_id or ""))
        codes = [self.claim_with(worker_id, limit)[0].code for _ in range(2)]
        assert codes == [Code.STORED, Code.LIMITED]

    def test_a_job_that_comes_back_has_one_slot(self) -> None:
        worker_id, limit = self.new_worker(), [SlotWanted("limit", 2)]
        first, second = (self.claim_with(worker_id, limit)[0].job_id for _ in range(2))
        for job_id in (first, second):
            head = self.store.head(job_id)
            self.store.abandon(job_id, Claim(worker_id, head.epoch, head.claim_id or ""))
        again = self.claiming(second, worker_id)
        assert self.store.claim_many([again], {second: limit})[0].code is Code.STORED
        assert [self.claim_with(worker_id, limit)[0].code for _ in range(2)] == [Code.STORED, Code.LIMITED]

    def test_a_job_that_is_taken_over_keeps_its_slot(self) -> None:
        elsewhere = self.harness.reopen()
        former, limit = self.new_worker(elsewhere), [SlotWanted("limit", 1)]
        (answer,) = self.claim_with(former, limit)
        self.harness.end_process(elsewhere, former)
        living = self.new_worker()
        assert self.claim_with(living, limit)[0].code is Code.LIMITED
        self.claim(answer.job_id, living)
        assert self.claim_with(living, limit)[0].code is Code.LIMITED

    def test_a_rate_is_used_up_for_its_time_whatever_becomes_of_the_jobs(self) -> None:
        worker_id = self.new_worker()
        hourly, over = [SlotWanted("hourly", 2, 3600.0)], [SlotWanted("over", 1, 0.0)]
        codes = [answer.code for answer in self.claim_with(worker_id, hourly, 3)]
        assert sorted(codes) == [Code.LIMITED, Code.STORED, Code.STORED]
        assert [self.claim_with(worker_id, over)[0].code for _ in range(2)] == [Code.STORED, Code.STORED]

    def test_workers_that_claim_at_once_never_hold_more_slots_than_there_are(self) -> None:
        workers = [self.new_worker() for _ in range(8)]
        items = [[self.claiming(self.due_job(), worker_id) for _ in range(2)] for worker_id in workers]
        limit = [SlotWanted("limit", 3)]

        def claim(number: int) -> list[Answer]:
            return self.store.claim_many(items[number], {item.job_id: limit for item in items[number]})

        codes = [answer.code for answers in in_parallel(8, claim) for answer in answers]
        assert codes.count(Code.STORED) <= 3
        assert codes.count(Code.STORED) + codes.count(Code.LIMITED) == 16
        assert self.store.owned_counts() == {} or sum(self.store.owned_counts().values()) == codes.count(Code.STORED)

    def test_what_a_limit_holds_up_is_no_work(self) -> None:
        ours, theirs = self.due_job(-20.0, tags={"tenant": "us"}), self.due_job(tags={"tenant": "them"})
        self.due_job(workflow="billing")
        query = WorkQuery(("registration", "billing"), 1, {}, [("registration", {"tenant": "us"}), ("billing", {})])
        assert [head.job_id for head in self.store.look_for_work(query).due] == [theirs]
        assert self.due(limit=1) == [ours]

    # --- recorders ---------------------------------------------------------------------------------------------------

    def test_a_recorders_claim_needs_no_worker_and_is_fenced_by_the_next_one(self) -> None:
        first = Claim("", 1, "first")
        job_id = self.store.create(self.build.job(claim=first, mode="recorded"))
        second = Claim("", 2, "second")
        known = self.position(job_id)
        self.stored(self.build.append(job_id, known, first, "recorded"))

        def rule(head: Head, tail: object) -> Proposal:
            events = self.build.seal(job_id, head.position, changed("claimed"))
            return Proposal(events, self.build.columns(mode="recorded"), 2, second)

        self.store.append_locked(job_id, known, rule)
        head = self.store.head(job_id)
        assert (head.worker_id, head.epoch, head.claim_id) == (None, 2, "second")
        assert self.code(self.build.append(job_id, head.position, first, "former")) is Code.FENCED
        assert self.code(self.build.append(job_id, head.position, second, "latter")) is Code.STORED
        work = self.store.look_for_work(WorkQuery(("registration",)))
        assert (work.due, work.left_behind) == ([], [])

    # --- batches -----------------------------------------------------------------------------------------------------

    def test_batches_are_counted_by_status_newest_first(self) -> None:
        for status in ("queued", "queued", "completed"):
            self.new_job(batch_id="a", status=status)
        self.new_job(batch_id="b", status="failed")
        self.new_job()
        counted = [(batch.batch_id, batch.statuses) for batch in self.store.batches()]
        assert counted == [("b", {"failed": 1}), ("a", {"queued": 2, "completed": 1})]
        assert [batch.batch_id for batch in self.store.batches(limit=1)] == ["b"]
        assert [batch.batch_id for batch in self.store.batches("a")] == ["a"]
        assert self.store.batches("unknown") == []

    # --- hints -------------------------------------------------------------------------------------------------------

    def test_a_wait_for_a_hint_ends_by_itself(self) -> None:
        elsewhere = self.harness.reopen()
        elsewhere.await_hint(0.01)
        assert elsewhere.await_hint(0.01) is False
