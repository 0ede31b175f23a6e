"""Reading a log: in order, within bounds, and loud about every row that cannot be trusted or understood."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from compliance.log_case import LogCase

from steplog.eventstore.chain import Position, link
from steplog.eventstore.codec import decode, encode
from steplog.eventstore.errors import DamagedLog, JobNotFound, LogError, UnknownEvent
from steplog.eventstore.events import Event
from steplog.eventstore.rows import Row

Rewrite = Callable[[list[Row]], list[Row]]


class ReadingCompliance(LogCase):
    def test_bounds_leave_out_after_and_take_in_until(self) -> None:
        job_id, _ = self.long_job(4)
        for after in range(8):
            for until in (*range(8), None):
                versions = [event.version for event in self.store.read(job_id, after, until)]
                assert versions == list(range(after + 1, min(6, 6 if until is None else until) + 1))

    def test_long_log_comes_back_whole(self) -> None:
        job_id, claim = self.owned_job()
        self.stored(self.build.append(job_id, self.position(job_id), claim, *range(1200)))
        assert [event.version for event in self.store.read(job_id)] == list(range(1, 1203))
        assert [event.version for event in self.store.read(job_id, 499, 1001)] == list(range(500, 1002))

    def test_read_that_is_not_finished_stops_nobody(self) -> None:
        job_id, claim = self.long_job()
        reading = self.store.read(job_id)
        first = next(reading)
        self.stored(self.build.append(job_id, self.position(job_id), claim, "while reading"))
        assert [first.version, *[event.version for event in reading]][:6] == [1, 2, 3, 4, 5, 6]

    def test_long_log_that_is_not_read_to_its_end_leaves_no_thread(self) -> None:
        job_id, _ = self.long_job(1200)
        before = threading.enumerate()
        reading = self.store.read(job_id)
        assert [event.version for event in islice(reading, 600)][-1] == 600
        del reading
        assert set(threading.enumerate()) <= set(before)

    def test_tail_is_what_stands_between_a_position_and_a_head_that_was_seen(self) -> None:
        job_id, claim = self.long_job(4)
        log, head = self.log(job_id), self.store.head(job_id)
        self.stored(self.build.append(job_id, head.position, claim, "since then"))
        known = Position(log[1].version, log[1].hash, log[1].recorded_at)
        assert self.store.tail(head, known) == log[2:]
        assert self.store.tail(head, Position()) == log
        assert self.store.tail(head, head.position) == []

    def test_tail_that_does_not_follow_from_its_position_is_damage(self) -> None:
        job_id, _ = self.long_job(4)
        head = self.store.head(job_id)
        with pytest.raises(DamagedLog):
            self.store.tail(head, Position(2, "0" * 64, head.recorded_at))

    def test_unknown_job_is_refused(self) -> None:
        job_id = self.build.clock.new_id()
        with pytest.raises(JobNotFound):
            self.store.head(job_id)
        with pytest.raises(JobNotFound):
            self.store.look_at(job_id)
        with pytest.raises(JobNotFound):
            list(self.store.read(job_id))

    # --- damage ------------------------------------------------------------------------------------------------------

    def test_gap_is_named_by_job_and_version(self) -> None:
        self.assert_damaged(3, lambda rows: [row for row in rows if row.version != 3])

    def test_log_cut_at_its_end_is_damaged(self) -> None:
        self.assert_damaged(5, lambda rows: rows[:4])

    def test_log_without_any_rows_is_damaged(self) -> None:
        self.assert_damaged(1, lambda rows: [])

    def test_log_without_its_first_row_is_damaged(self) -> None:
        self.assert_damaged(1, lambda rows: rows[1:])

    def test_swapped_rows_are_damage(self) -> None:
        def swap(rows: list[Row]) -> list[Row]:
            third, fourth = rows[2], rows[3]
            return [*rows[:2], fourth._replace(version=3), third._replace(version=4), *rows[4:]]

        self.assert_damaged(3, swap)

    def test_changed_payload_is_damage(self) -> None:
        def change(rows: list[Row]) -> list[Row]:
            payload = rows[3].payload
            text = payload.decode() if isinstance(payload, bytes) else payload
            return [*rows[:3], rows[3]._replace(payload=text.replace("1", "2")), *rows[4:]]

        self.assert_damaged(4, change)

    @pytest.mark.parametrize(
        "change",
        [
            {"event_id": "01a2093c-6d33-78dc-8ee7-dc7deb80a53f"},
            {"type": "ContextCleared"},
            {"schema_version": 2},
            {"recorded_at": "2026-01-01T00:00:00.000001Z"},
            {"hash": "0" * 64},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_changed_envelope_is_damage(self, change: dict[str, Any]) -> None:
        self.assert_damaged(4, lambda rows: [*rows[:3], rows[3]._replace(**change), *rows[4:]])

    @pytest.mark.parametrize("field", ["type", "hash", "payload"])
    def test_value_of_two_lines_is_damage(self, field: str) -> None:
        of_two_lines: dict[str, Any] = {field: "[1,\n2]"}
        self.assert_damaged(4, lambda rows: [*rows[:3], rows[3]._replace(**of_two_lines), *rows[4:]])

    def test_damage_far_behind_is_found_where_it_is(self) -> None:
        def change(rows: list[Row]) -> list[Row]:
            return [*rows[:1100], rows[1100]._replace(type="SubStepSkipped"), *rows[1101:]]

        self.assert_damaged(1101, change, values=1200)

    def test_last_row_replaced_by_one_that_follows_from_the_log_is_damage(self) -> None:
        self.assert_damaged(6, lambda rows: _relinked(self.job_id, rows, data={"set": {"value": "forged"}}))

    def test_read_up_to_the_damage_goes_on_working(self) -> None:
        job_id, _ = self.long_job(4)
        log = self.log(job_id)
        self.harness.rewrite_rows(job_id, lambda rows: rows[:4])
        assert list(self.store.read(job_id, until=4)) == log[:4]
        with pytest.raises(DamagedLog):
            list(self.store.read(job_id, 4))
        with pytest.raises(DamagedLog):
            list(self.store.read(job_id, 5))

    def test_damaged_job_is_not_appended_to_under_its_lock(self) -> None:
        job_id, _ = self.long_job(4)
        head, known = self.store.head(job_id), self.log(job_id)[0]
        self.harness.rewrite_rows(job_id, lambda rows: [row for row in rows if row.version != 3])
        worker_id = self.new_worker()
        self.store.retire_worker(head.worker_id or "")
        position = Position(known.version, known.hash, known.recorded_at)
        with pytest.raises(DamagedLog):
            self.store.claim(job_id, worker_id, position, self.build.claiming())
        with pytest.raises(DamagedLog):
            self.store.append_locked(job_id, position, self.build.proposing())
        assert self.store.head(job_id) == head

    # --- not understood ----------------------------------------------------------------------------------------------

    def test_unknown_type_is_refused_by_name(self) -> None:
        self.assert_refused(UnknownEvent, 6, lambda rows: _relinked(self.job_id, rows, type="JobTeleported"))

    def test_newer_schema_version_is_refused(self) -> None:
        self.assert_refused(UnknownEvent, 6, lambda rows: _relinked(self.job_id, rows, schema_version=99))

    @pytest.mark.parametrize("data", [{"unheard_of": 1}, {"set": 1}, ["set"]], ids=str)
    def test_data_of_another_shape_are_refused(self, data: Any) -> None:
        self.assert_refused(DamagedLog, 6, lambda rows: _relinked(self.job_id, rows, data=data))

    # --- how it is told ----------------------------------------------------------------------------------------------

    job_id: str

    def assert_damaged(self, version: int, change: Rewrite, *, values: int = 4) -> None:
        self.assert_refused(DamagedLog, version, change, values=values)

    def assert_refused(self, error: type[LogError], version: int, change: Rewrite, *, values: int = 4) -> None:
        """The job is refused at that version, what comes before is read, and another job is none the worse."""
        self.job_id, _ = self.long_job(values)
        healthy, _ = self.long_job(4)
        log, seen = self.log(self.job_id), list[Event]()
        self.harness.rewrite_rows(self.job_id, change)
        with pytest.raises(error) as refused:
            seen.extend(self.store.read(self.job_id))
        assert (refused.value.job_id, refused.value.version) == (self.job_id, version)
        assert seen == log[: version - 1]
        assert len(self.log(healthy)) == 6


def _relinked(job_id: str, rows: list[Row], *, data: Any = None, **changes: Any) -> list[Row]:
    """The rows with the last one changed and hashed anew: only its content gives it away."""
    last = rows[-1]._replace(**changes)
    payload = encode(decode(last.payload) if data is None else data)
    hash = link(
        rows[-2].hash,
        job_id,
        last.version,
        last.event_id,
        last.type,
        last.schema_version,
        last.recorded_at,
        payload,
    )
    return [*rows[:-1], last._replace(payload=payload, hash=hash)]
