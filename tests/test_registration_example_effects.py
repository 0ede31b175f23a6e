"""The witness of the registration: what the log accounts for passes, and whatever happened beyond that is found."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from registration_service import registration_input

from steplog import open_store
from steplog.eventstore.events import Event
from steplog.examples.registration import registration, restaurant_db
from steplog.examples.registration.effects import compare, count_effects
from steplog.examples.registration.menu import read_menu
from steplog.examples.registration.places import (
    SAMPLE_MENU,
    request_log,
    response_log,
    restaurant_database,
    service_folder,
)

Line = dict[str, Any]


class Log:
    """Events of one sub-step, a second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, kind: str, **data: Any) -> Log:
        version = len(self.events) + 1
        where = {"phase": "phase2", "sub_step": "servicesConfig", "generation": 1, "attempt": 1}
        at = f"2026-01-01T00:00:{version:02d}.000000Z"
        self.events.append(Event("job-1", version, f"event-{version}", kind, 1, at, where | data, ""))
        return self

    def start(self, **data: Any) -> Log:
        return self.add("SubStepStarted", **{"idempotency_key": "key-1"} | data)


def request(second: float) -> Line:
    return {"key": "key-1", "at": f"2026-01-01T00:00:{second:09.6f}Z"}


def problems(log: Log, *requests: Line, performed: int = 1) -> list[str]:
    (effects,) = compare(log.events, requests, [{"key": "key-1"}] * performed)
    return effects.problems()


def test_one_request_for_one_attempt_is_accounted_for() -> None:
    assert problems(Log().start().add("SubStepCompleted"), request(1.5)) == []


def test_retry_and_crash_each_account_for_one_more_request() -> None:
    log = Log().start().add("SubStepFailed").add("SubStepRetryScheduled").start().add("SubStepInterrupted").start()
    log.add("SubStepCompleted")
    assert problems(log, request(1.5), request(4.5), request(6.5)) == []


def test_two_requests_in_one_attempt_are_found() -> None:
    assert problems(Log().start().add("SubStepCompleted"), request(1.5), request(1.6)) == [
        "phase2/servicesConfig: asked 2 times in 1 attempts",
        "phase2/servicesConfig: asked 2 times (retries and crashes allow 1)",
    ]


def test_second_attempt_without_a_retry_or_crash_is_found() -> None:
    log = Log().start().start().add("SubStepCompleted")
    assert problems(log, request(1.5), request(2.5)) == [
        "phase2/servicesConfig: asked 2 times (retries and crashes allow 1)"
    ]


def test_request_after_the_acknowledged_completion_is_found() -> None:
    log = Log().start().add("SubStepInterrupted").start().add("SubStepCompleted")
    assert problems(log, request(1.5), request(4.000001)) == [
        "phase2/servicesConfig: asked 1 times after its completion was acknowledged"
    ]


def test_completed_sub_step_that_runs_again_is_found_even_if_it_asks_for_nothing() -> None:
    assert problems(Log().start().add("SubStepCompleted").start(), performed=0) == [
        "phase2/servicesConfig: ran again after it had completed (1 times)"
    ]


def test_work_done_twice_under_one_key_is_found() -> None:
    log = Log().start().add("SubStepCompleted")
    assert problems(log, request(1.5), performed=2) == ["phase2/servicesConfig: done 2 times"]


def test_completion_of_work_that_was_never_done_is_found() -> None:
    log = Log().start().add("SubStepCompleted")
    assert problems(log, request(1.5), performed=0) == [
        "phase2/servicesConfig: completed, but the service never did it"
    ]


def test_resuming_a_failed_job_and_a_reset_that_keeps_the_key_account_for_one_more_request_each() -> None:
    log = Log().start().add("SubStepFailed").add("JobResumed").start().add("SubStepCompleted")
    log.start(generation=2).add("SubStepCompleted", generation=2)
    assert problems(log, request(1.5), request(4.5), request(6.5)) == []


# --- against a real run ----------------------------------------------------------------------------------------------


@pytest.fixture
def events(tmp_path: Path) -> list[Event]:
    with closing(open_store(f"sqlite:///{tmp_path / 'log.db'}")) as store, registration_input(tmp_path) as given:
        handle = registration.run(given, store=store)
        return list(store.read(handle.job_id))


def append_again(log: Path, **changes: str) -> None:
    """Repeat the first line of the service's log, changed."""
    line = log.read_text(encoding="utf-8").splitlines()[0]
    for name, value in changes.items():
        before = line.split(f'"{name}": "')[1].split('"')[0]
        line = line.replace(before, value)
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"{line}\n")


def test_run_without_faults_is_accounted_for(tmp_path: Path, events: list[Event]) -> None:
    account = count_effects(events)
    assert account.problems == []
    assert account.menu is not None
    assert account.menu.dishes == len(read_menu(SAMPLE_MENU).dishes)


def test_request_that_was_noted_twice_is_found(tmp_path: Path, events: list[Event]) -> None:
    append_again(request_log(service_folder(tmp_path)))
    assert any("asked 2 times in 1 attempts" in problem for problem in count_effects(events).problems)


def test_work_that_was_done_twice_is_found(tmp_path: Path, events: list[Event]) -> None:
    append_again(response_log(service_folder(tmp_path)))
    assert any("done 2 times" in problem for problem in count_effects(events).problems)


def test_request_under_a_key_that_the_log_never_gave_out_is_found(tmp_path: Path, events: list[Event]) -> None:
    append_again(request_log(service_folder(tmp_path)), key="foreign")
    assert any("a key that the log never gave out" in problem for problem in count_effects(events).problems)


def test_requests_of_other_jobs_are_not_counted(tmp_path: Path, events: list[Event]) -> None:
    append_again(request_log(service_folder(tmp_path)), job_id="another job")
    assert count_effects(events).problems == []


def test_rows_imported_twice_without_a_crash_are_found(tmp_path: Path, events: list[Event]) -> None:
    key = next(each.key for each in count_effects(events).keys if each.sub_step == "phase2/menuImport")
    for _ in restaurant_db.import_menu(restaurant_database(tmp_path), read_menu(SAMPLE_MENU), key, start=240):
        pass
    assert count_effects(events).problems == ["phase2/menuImport: 20 rows imported again; 0 crashes allow 0"]


def test_dish_that_is_missing_or_foreign_is_found(tmp_path: Path, events: list[Event]) -> None:
    with restaurant_db.open_restaurant(restaurant_database(tmp_path)) as restaurant:
        restaurant.execute("delete from dishes where name = 'Tonic'")
        restaurant.execute("insert into dishes values ('foreign', '', '', '', '', '', '', '', '', '')")
    assert count_effects(events).problems == [
        "phase2/menuImport: 1 dishes of the menu are not in the database",
        "phase2/menuImport: 1 dishes in the database are not on the menu",
    ]
