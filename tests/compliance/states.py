"""Stored states: kept once, found by reducer and version."""

from __future__ import annotations

from typing import Any

import pytest
from compliance.log_case import LogCase

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, JobNotFound
from steplog.eventstore.store import StoredState


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


class StatesCompliance(LogCase):
    def test_stored_state_comes_back_as_it_went_in(self) -> None:
        job_id, _ = self.long_job()
        state = {"b": [1, 1.0, None, "ü"], "a": nested(150), "big": (1 << 64) - 1}
        stored = StoredState(job_id, self.position(job_id), 7, state)
        self.store.save_state(stored)
        assert self.store.open_job(job_id, 7).stored == stored
        assert self.harness.reopen().open_job(job_id, 7).stored == stored

    def test_latest_state_up_to_a_version_is_found(self) -> None:
        job_id, _ = self.long_job()
        for version in (2, 5, 4):
            self.keep(job_id, version, {"at": version})
        assert self.found(job_id) == 5
        assert [self.found(job_id, until) for until in (1, 2, 3, 4, 5, 6)] == [None, 2, 2, 4, 5, 5]

    def test_state_of_another_reducer_is_not_found(self) -> None:
        job_id, _ = self.long_job()
        self.keep(job_id, 3, {})
        assert self.store.open_job(job_id, 8).stored is None
        assert self.store.open_job(job_id, 6).stored is None

    def test_state_stored_already_is_left_as_it_is(self) -> None:
        job_id, _ = self.long_job()
        self.keep(job_id, 3, {"value": "first"})
        self.keep(job_id, 3, {"value": "second"})
        stored = self.store.open_job(job_id, 7).stored
        assert stored is not None
        assert stored.state == {"value": "first"}

    def test_state_of_a_log_that_is_not_this_one_is_not_kept(self) -> None:
        job_id, _ = self.long_job()
        end = self.position(job_id)
        for lost in (Position(end.version, "f" * 64, end.recorded_at), Position(end.version + 1, end.hash)):
            self.store.save_state(StoredState(job_id, lost, 7, {"lost": True}))
        assert self.store.open_job(job_id, 7).stored is None

    def test_job_without_stored_states_has_none(self) -> None:
        assert self.store.open_job(self.new_job(), 7).stored is None
        with pytest.raises(JobNotFound):
            self.store.open_job(self.build.clock.new_id(), 7)

    def test_job_opens_with_its_state_and_exactly_the_events_behind_it(self) -> None:
        job_id, _ = self.long_job()
        log = self.log(job_id)
        assert list(self.store.open_job(job_id, 7).events) == log
        self.keep(job_id, 3, {})
        assert list(self.store.open_job(job_id, 7).events) == log[3:]
        assert list(self.store.open_job(job_id, 7, 5).events) == log[3:5]
        assert list(self.store.open_job(job_id, 7, 3).events) == []
        assert list(self.store.open_job(job_id, 7, 2).events) == log[:2]
        self.keep(job_id, len(log), {})
        assert list(self.store.open_job(job_id, 7).events) == []

    def test_damage_behind_the_stored_state_is_found_when_the_job_is_opened(self) -> None:
        job_id, _ = self.long_job()
        self.keep(job_id, 3, {})
        self.harness.rewrite_rows(
            job_id, lambda rows: [*rows[:4], rows[4]._replace(event_id=rows[3].event_id), *rows[5:]]
        )
        with pytest.raises(DamagedLog) as refused:
            list(self.store.open_job(job_id, 7).events)
        assert refused.value.version == 5

    def test_state_of_a_log_that_has_another_event_there_is_not_gone_on_from(self) -> None:
        job_id, _ = self.long_job()
        self.keep(job_id, 3, {})
        self.harness.rewrite_rows(job_id, lambda rows: [*rows[:2], rows[2]._replace(hash="f" * 64), *rows[3:]])
        assert self.store.open_job(job_id, 7).stored is None

    def keep(self, job_id: str, version: int, state: dict[str, Any]) -> None:
        event = self.log(job_id)[version - 1]
        self.store.save_state(StoredState(job_id, Position(version, event.hash, event.recorded_at), 7, state))

    def found(self, job_id: str, until: int | None = None) -> int | None:
        stored = self.store.open_job(job_id, 7, until).stored
        return stored.position.version if stored else None
