"""Inspection: everything as it is stored; and what a head takes over from elsewhere without a claim."""

from __future__ import annotations

from collections.abc import Sequence

from compliance.log_case import LogCase
from log_builder import changed

from steplog.eventstore.chain import Position
from steplog.eventstore.events import Event
from steplog.eventstore.inspection import Key, all_job_ids, all_keys
from steplog.eventstore.rows import Row, read_rows
from steplog.eventstore.store import Head, Proposal, StoredState


class InspectingCompliance(LogCase):
    def test_rows_are_what_the_log_reads(self) -> None:
        job_id, _ = self.long_job()
        rows = list(self.store.inspection.rows(job_id))
        assert list(read_rows(job_id, rows, Position())) == self.log(job_id)
        assert [row.version for row in self.store.inspection.rows(job_id, 2, 4)] == [3, 4]
        assert list(self.store.inspection.rows(self.build.clock.new_id())) == []

    def test_rows_behind_the_head_and_behind_a_gap_are_seen(self) -> None:
        job_id, _ = self.long_job()

        def cut_and_go_on(rows: list[Row]) -> list[Row]:
            return [*rows[:2], *rows[3:], rows[-1]._replace(version=rows[-1].version + 1)]

        self.harness.rewrite_rows(job_id, cut_and_go_on)
        assert [row.version for row in self.store.inspection.rows(job_id)] == [1, 2, 4, 5, 6, 7]

    def test_every_job_is_found_page_by_page_also_without_events(self) -> None:
        created = sorted(self.new_job() for _ in range(5))
        self.harness.rewrite_rows(created[2], lambda rows: [])
        inspection = self.store.inspection
        assert list(all_job_ids(inspection)) == created
        assert inspection.job_ids(created[1], 2) == created[2:4]
        assert inspection.job_ids(created[4]) == []

    def test_keys_are_found_page_by_page_and_by_name(self) -> None:
        holders = {name: self.new_job(key=name) for name in ("b", "a", "c")}
        keys = [Key("registration", name, holders[name], "input") for name in sorted(holders)]
        inspection = self.store.inspection
        assert list(all_keys(inspection)) == keys
        assert inspection.keys(("registration", "a"), 1) == keys[1:2]
        assert inspection.key("registration", "b") == keys[1]
        assert inspection.key("cooking", "b") is None

    def test_stored_states_of_every_reducer_come_by_version(self) -> None:
        job_id, _ = self.long_job()
        log = self.log(job_id)
        stored = [
            StoredState(job_id, Position(at, log[at - 1].hash, log[at - 1].recorded_at), reducer, {"at": at})
            for at, reducer in ((2, 7), (4, 6), (4, 7))
        ]
        for state in reversed(stored):
            self.store.save_state(state)
        assert list(self.store.inspection.states(job_id)) == stored
        assert list(self.store.inspection.states(self.new_job())) == []

    def test_whole_store_has_no_damage(self) -> None:
        self.long_job()
        assert self.store.inspection.damage() == []

    def test_job_from_elsewhere_has_its_epoch_and_no_owner(self) -> None:
        job = self.build.job()
        self.store.create(type(job)(job.job_id, job.events, job.columns, job.input_hash, epoch=3))
        head = self.store.head(job.job_id)
        assert (head.epoch, head.claim_id, head.worker_id) == (3, None, None)
        assert self.claim(job.job_id).epoch == 4

    def test_epoch_of_a_locked_append_never_falls(self) -> None:
        job_id = self.new_job()
        for epoch, expected in ((5, 5), (2, 5)):
            known = self.position(job_id)

            def rule(head: Head, tail: Sequence[Event], epoch: int = epoch) -> Proposal:
                return Proposal(
                    self.build.seal(head.job_id, head.position, changed(epoch)), self.build.columns(), epoch
                )

            self.store.append_locked(job_id, known, rule)
            assert self.store.head(job_id).epoch == expected

    def test_locked_append_of_nothing_rewrites_the_columns_alone(self) -> None:
        job_id, _ = self.owned_job()
        before, log = self.store.head(job_id), self.log(job_id)
        columns = self.build.columns(status="parked", last_error="it was so")
        self.store.append_locked(job_id, before.position, lambda head, tail: Proposal([], columns))
        after = self.store.head(job_id)
        assert after.columns == columns
        assert (after.position, after.epoch, after.claim_id) == (before.position, before.epoch, before.claim_id)
        assert self.log(job_id) == log
