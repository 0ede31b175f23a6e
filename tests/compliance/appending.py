"""The owner's append: idempotent, fenced, in order, answered by a code per job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from compliance.in_parallel import in_parallel
from compliance.log_case import LogCase
from log_builder import after, changed

from steplog.eventstore.chain import Position
from steplog.eventstore.store import Append, Claim, Code

OTHER_HASH = "f" * 64

VALUES: list[Any] = [
    None,
    True,
    0,
    -(1 << 63),
    (1 << 64) - 1,
    (1 << 53) + 1,
    1.0,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    "",
    'ünï ☃ 𝄞 \u2028 \x01 " \\ /',
    [],
    {},
    [[1, "1", 1.0], {"a": {"": None}, "b": 1}],
]


class AppendingCompliance(LogCase):
    def test_stored_append_moves_log_and_head(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "one", "two")
        (answer,) = self.store.append([item])
        assert (answer.job_id, answer.code, answer.version) == (job_id, Code.STORED, 4)
        head = self.store.head(job_id)
        assert (head.position, head.columns) == (after(item), item.columns)
        assert self.values(job_id) == ["one", "two"]

    def test_append_is_seen_through_another_opening(self) -> None:
        job_id, _ = self.long_job()
        assert list(self.harness.reopen().read(job_id)) == self.log(job_id)

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_payload_comes_back_type_exact(self, value: Any) -> None:
        job_id, claim = self.owned_job()
        self.stored(self.build.append(job_id, self.position(job_id), claim, value))
        (stored,) = self.values(job_id)
        assert (stored, repr(stored)) == (value, repr(value))

    def test_envelope_comes_back_as_it_was_sealed(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "value")
        self.stored(item)
        event, sealed = self.log(job_id)[-1], item.events[0]
        assert (event.job_id, event.version, event.event_id) == (sealed.job_id, sealed.version, sealed.event_id)
        assert (event.type, event.schema_version) == (sealed.type, sealed.schema_version)
        assert (event.recorded_at, event.hash) == (sealed.recorded_at, sealed.hash)

    # --- stored before -----------------------------------------------------------------------------------------------

    def test_resend_is_answered_stored_and_not_stored_twice(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "one", "two")
        assert self.store.append([item]) == self.store.append([item])
        assert self.values(job_id) == ["one", "two"]

    def test_resend_behind_later_appends_of_the_owner_is_answered_stored(self) -> None:
        job_id, claim = self.owned_job()
        first = self.build.append(job_id, self.position(job_id), claim, "one")
        self.stored(self.build.append(job_id, self.stored(first), claim, "two", "three"))
        (answer,) = self.store.append([first])
        assert (answer.code, answer.version) == (Code.STORED, 5)
        assert self.values(job_id) == ["one", "two", "three"]

    def test_resend_behind_an_operators_append_is_answered_stored(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "one")
        self.store.append_locked(job_id, self.stored(item), self.build.proposing(changed("operator")))
        assert self.code(item) is Code.STORED
        assert self.values(job_id) == ["one", "operator"]

    def test_resend_after_a_takeover_is_answered_stored(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "one")
        self.stored(item)
        self.store.retire_worker(claim.worker_id)
        self.claim(job_id)
        assert self.code(item) is Code.STORED
        assert self.values(job_id) == ["one"]

    def test_resend_with_one_event_more_is_no_resend(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "one", "two")
        self.stored(item._replace(events=item.events[:1]))
        assert self.code(item) is Code.CONFLICT
        assert self.values(job_id) == ["one"]

    def test_same_facts_under_new_event_ids_are_no_resend(self) -> None:
        job_id, claim = self.owned_job()
        before = self.position(job_id)
        self.stored(self.build.append(job_id, before, claim, "one"))
        assert self.code(self.build.append(job_id, before, claim, "one")) is Code.CONFLICT
        assert self.values(job_id) == ["one"]

    # --- conflict, fence, regress, missing ---------------------------------------------------------------------------

    def test_append_behind_an_operators_is_a_conflict_and_can_be_decided_again(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "stale")
        version = self.store.append_locked(job_id, item.expected, self.build.proposing(changed("operator")))
        (answer,) = self.store.append([item])
        assert (answer.code, answer.version) == (Code.CONFLICT, version)
        self.stored(self.build.append(job_id, self.position(job_id), claim, "again"))
        assert self.values(job_id) == ["operator", "again"]

    @pytest.mark.parametrize("change", [{"epoch": 2}, {"epoch": 0}, {"claim_id": "another"}], ids=str)
    def test_append_under_another_claim_is_fenced(self, change: dict[str, Any]) -> None:
        job_id, claim = self.owned_job()
        head = self.store.head(job_id)
        foreign = replace(claim, **change)
        (answer,) = self.store.append([self.build.append(job_id, head.position, foreign, "foreign")])
        assert (answer.code, answer.version) == (Code.FENCED, head.version)
        assert self.store.head(job_id) == head
        assert self.values(job_id) == []

    def test_append_to_a_job_nobody_owns_is_fenced(self) -> None:
        job_id = self.new_job()
        item = self.build.append(job_id, self.position(job_id), Claim("nobody", 0, ""), "value")
        assert self.code(item) is Code.FENCED

    def test_fence_is_told_before_conflict(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "late")
        self.store.retire_worker(claim.worker_id)
        self.claim(job_id)
        assert self.code(item) is Code.FENCED

    def test_log_behind_what_was_acknowledged_has_regressed(self) -> None:
        job_id, claim = self.owned_job()
        head = self.store.head(job_id)
        lost = Position(head.version + 3, OTHER_HASH, head.recorded_at)
        (answer,) = self.store.append([self.build.append(job_id, lost, claim, "value")])
        assert (answer.code, answer.version) == (Code.REGRESSED, head.version)
        assert self.store.head(job_id) == head

    def test_other_hash_at_the_acknowledged_version_has_regressed(self) -> None:
        job_id, claim = self.long_job()
        end = self.position(job_id)
        for version in (end.version, end.version - 1):
            lost = Position(version, OTHER_HASH, end.recorded_at)
            assert self.code(self.build.append(job_id, lost, claim, "value")) is Code.REGRESSED
        assert self.position(job_id) == end

    def test_regress_is_told_before_fence(self) -> None:
        job_id, claim = self.owned_job()
        lost = Position(9, OTHER_HASH, self.position(job_id).recorded_at)
        item = self.build.append(job_id, lost, replace(claim, claim_id="another"), "value")
        assert self.code(item) is Code.REGRESSED

    def test_append_to_no_job_is_missing(self) -> None:
        _, claim = self.owned_job()
        item = self.build.append(self.build.clock.new_id(), Position(1, OTHER_HASH), claim, "value")
        (answer,) = self.store.append([item])
        assert (answer.job_id, answer.code, answer.version) == (item.job_id, Code.MISSING, 0)

    # --- alone -------------------------------------------------------------------------------------------------------

    def test_append_that_waits_for_the_head_is_answered_as_one_that_does_not(self) -> None:
        batch, expected = self._one_of_each_outcome()
        for _ in ("first", "again"):
            answers = [self.store.append_waiting(item) for item in batch]
            assert [answer.job_id for answer in answers] == [item.job_id for item in batch]
            assert {answer.job_id: answer.code for answer in answers} == expected
        assert answers == self.store.append(batch)

    # --- batches -----------------------------------------------------------------------------------------------------

    def test_batch_is_answered_in_its_order_and_bad_members_hurt_nobody(self) -> None:
        batch, expected = self._one_of_each_outcome()
        for turned in (batch, batch[::-1]):
            answers = self.store.append(turned)
            assert [answer.job_id for answer in answers] == [item.job_id for item in turned]
            assert {answer.job_id: answer.code for answer in answers} == expected
        for item in batch:
            if expected[item.job_id] is Code.STORED:
                assert self.values(item.job_id) == ["value"]

    @pytest.mark.parametrize("change", [{"epoch": 2}, {"epoch": 0}, {"claim_id": "another"}, {"claim_id": ""}], ids=str)
    def test_batch_member_under_another_claim_is_fenced(self, change: dict[str, Any]) -> None:
        (job_id, claim), (neighbour_id, neighbours_claim) = self.owned_job(), self.owned_job()
        foreign = self.build.append(job_id, self.position(job_id), replace(claim, **change), "foreign")
        beside = self.build.append(neighbour_id, self.position(neighbour_id), neighbours_claim, "beside")
        assert [answer.code for answer in self.store.append([foreign, beside])] == [Code.FENCED, Code.STORED]
        assert (self.values(job_id), self.values(neighbour_id)) == ([], ["beside"])

    def test_batch_of_nothing_is_answered_by_nothing(self) -> None:
        assert self.store.append([]) == []

    def _one_of_each_outcome(self) -> tuple[list[Append], dict[str, Code]]:
        items, codes = [], [Code.STORED, Code.CONFLICT, Code.FENCED, Code.REGRESSED, Code.MISSING, Code.STORED]
        for code in codes:
            job_id, claim = self.owned_job()
            item = self.build.append(job_id, self.position(job_id), claim, "value")
            if code is Code.CONFLICT:
                self.store.append_locked(job_id, item.expected, self.build.proposing(changed("operator")))
            elif code is Code.FENCED:
                item = item._replace(claim=replace(claim, claim_id="another"))
            elif code is Code.REGRESSED:
                item = self.build.append(job_id, Position(9, OTHER_HASH), claim, "value")
            elif code is Code.MISSING:
                item = self.build.append(self.build.clock.new_id(), item.expected, claim, "value")
            items.append(item)
        return items, {item.job_id: code for item, code in zip(items, codes, strict=True)}

    def test_threads_append_to_jobs_of_their_own(self) -> None:
        jobs = [self.owned_job() for _ in range(8)]

        def append(number: int) -> list[Code]:
            job_id, claim = jobs[number]
            codes, position = [], self.position(job_id)
            for value in range(5):
                item = self.build.append(job_id, position, claim, value)
                codes.append(self.code(item))
                position = after(item)
            return codes

        assert in_parallel(8, append) == [[Code.STORED] * 5] * 8
        assert [self.values(job_id) for job_id, _ in jobs] == [[0, 1, 2, 3, 4]] * 8

    def test_threads_resending_one_append_store_it_once(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "one")
        codes = set(in_parallel(8, lambda _: self.code(item)))
        assert codes <= {Code.STORED, Code.BUSY}
        assert Code.STORED in codes
        assert self.values(job_id) == ["one"]

    # --- release -----------------------------------------------------------------------------------------------------

    def test_release_leaves_the_job_without_an_owner(self) -> None:
        job_id, claim = self.owned_job()
        end = self.stored(self.build.append(job_id, self.position(job_id), claim, "last", release=True))
        head = self.store.head(job_id)
        assert (head.worker_id, head.claim_id, head.epoch) == (None, None, claim.epoch)
        assert self.code(self.build.append(job_id, end, claim, "after the last")) is Code.FENCED

    def test_resend_of_a_release_is_answered_stored(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "last", release=True)
        assert [self.code(item), self.code(item)] == [Code.STORED, Code.STORED]

    def test_resend_of_a_release_does_not_take_the_job_from_its_next_owner(self) -> None:
        job_id, claim = self.owned_job()
        item = self.build.append(job_id, self.position(job_id), claim, "last", release=True)
        self.stored(item)
        next_claim = self.claim(job_id)
        assert self.code(item) is Code.STORED
        assert self.store.head(job_id).claim_id == next_claim.claim_id

    # --- immutability ------------------------------------------------------------------------------------------------

    def test_stored_events_can_be_neither_changed_nor_deleted(self) -> None:
        job_id, _ = self.long_job()
        log = self.log(job_id)
        for attempt in self.harness.forbidden_statements(job_id):
            with pytest.raises(Exception, match=r"append-only|permission denied"):
                attempt()
        assert self.log(job_id) == log
