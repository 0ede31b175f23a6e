"""The runner keeps projections as they would be if they were made anew, whatever happens to it or beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged_jobs import LoggedJob, facts_of
from shown_jobs import HALF_WAY, TIMEOUT, claimed, completed, created, failed, started
from simulated_jobs import SimulatedLog, simulated_logs

from steplog import Retry, Workflow
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.events import EventData
from steplog.eventstore.feed import as_cursor
from steplog.eventstore.projected import Change, Document, Move, StepRow
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery, Store
from steplog.projections.following import Follower, Late, next_name
from steplog.projections.projecting import Job, Projection, Tally
from steplog.projections.report_table import ReportTable, step_row
from steplog.projections.runner import ProjectionRunner, kept_current, own_projections, read_statistics
from steplog.projections.statistics import Statistics
from steplog.testing.memory import MemoryStore

HALF_WAY_FACTS = [fact for _, fact in HALF_WAY]
MORE = [started(53.0, "phase2/menu_import", 2)[1], completed(54.0, "phase2/menu_import", 1.0, 2)[1]]

# --- what is kept ----------------------------------------------------------------------------------------------------


def kept(store: Store, projections: list[Projection] | None = None) -> dict[str, Any]:
    """Every live document, and the table's rows."""
    documents = {}
    for projection in projections or own_projections():
        live = store.projected.checkpoints()[projection.name]
        page = store.projected.page(projection.name, live["generation"], limit=10_000)
        documents[projection.name] = [document for document in page if document.data]
    return {**documents, "rows": [_comparable(row) for row in store.projected.step_rows(limit=10_000)]}


def made_anew(store: Store) -> dict[str, Any]:
    """What a runner that starts from nothing makes of the same log."""
    other = MemoryStore()
    for head in reversed(_heads(store)):
        events = list(store.read(head))
        job = LoggedJob(other, job_id=head)
        for event, fact in zip(events, facts_of(events), strict=True):
            job.clock = _At(event.recorded_at)
            job.add([fact])
    ProjectionRunner(other).catch_up()
    return kept(other)


def _heads(store: Store) -> list[str]:
    return [head.job_id for head in store.heads(HeadQuery(limit=10_000))]


class _At(SystemClock):
    """Always that instant."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def now(self) -> str:
        return self._at


def _comparable(row: StepRow) -> StepRow:
    """PostgreSQL's jsonb has an order of its own."""
    text = orjson.dumps(orjson.loads(row.sub_step_progress), option=orjson.OPT_SORT_KEYS).decode()
    return row._replace(sub_step_progress=text)


def half_way(store: Store) -> LoggedJob:
    job = LoggedJob(store)
    job.add(HALF_WAY_FACTS)
    return job


# --- from the feed ---------------------------------------------------------------------------------------------------


def test_first_run_takes_in_what_is_there_and_the_next_what_came(store: Store) -> None:
    jobs = [half_way(store) for _ in range(3)]
    runner = ProjectionRunner(store)
    runner.catch_up()
    assert kept(store) == made_anew(store)

    for job in jobs[:2]:
        job.add(MORE)
    half_way(store)
    runner.catch_up()
    assert kept(store) == made_anew(store)
    assert runner.lags_s() == {"statistics": 0.0, "report": 0.0}


def test_lag_is_the_age_of_the_oldest_event_not_taken_in(sqlite_store: SQLiteStore) -> None:
    runner = ProjectionRunner(sqlite_store)
    assert runner.lags_s() == {"statistics": None, "report": None}
    runner.catch_up()
    half_way(sqlite_store)  # on a clock of long ago
    assert all(lag is not None and lag > 60 for lag in runner.lags_s().values())
    runner.catch_up()
    assert set(runner.lags_s().values()) == {0.0}


def test_events_delivered_again_change_nothing(store: Store) -> None:
    half_way(store)
    ProjectionRunner(store).catch_up()
    before = kept(store)
    (live,) = [store.projected.checkpoints()["statistics"]]
    again = {**live, "cursor": store.feed(None, 1).cursor}
    assert store.projected.store(Change("statistics", [Move("statistics", live, again)]))
    ProjectionRunner(store).catch_up()
    assert kept(store) == before


def test_events_that_the_feed_left_out_are_found_by_a_look_at_all_jobs(store: Store) -> None:
    job, other = half_way(store), half_way(store)
    runner = ProjectionRunner(store)
    runner.catch_up()
    for each in (job, other):
        each.add(MORE)
    for name in ("statistics", "report"):
        live = store.projected.checkpoints()[name]
        assert store.projected.store(Change(name, [Move(name, live, {**live, "cursor": store.feed_end()})]))
    runner.catch_up()
    assert kept(store) != made_anew(store)
    for projection in own_projections():
        assert Follower(store, projection).sweep() == 2
    assert kept(store) == made_anew(store)


def test_feed_of_another_log_leads_to_a_look_at_all_jobs(store: Store) -> None:
    job = half_way(store)
    runner = ProjectionRunner(store)
    runner.catch_up()
    job.add(MORE)
    for name in ("statistics", "report"):
        live = store.projected.checkpoints()[name]
        store.projected.store(Change(name, [Move(name, live, {**live, "cursor": _elsewhere(store)})]))
    runner.catch_up()
    assert kept(store) == made_anew(store)
    assert runner.lags_s() == {"statistics": 0.0, "report": 0.0}


def _elsewhere(store: Store) -> str:
    """A cursor of a log that is not this one."""
    if isinstance(store, SQLiteStore):
        return as_cursor("sqlite", 1 << 40, "0" * 64)
    return as_cursor("postgres", "1", "00000001", "3:3:", "", "0", "00000000-0000-0000-0000-000000000000", 0)


def test_of_two_runners_one_comes_late_and_nothing_is_counted_twice(sqlite_store: SQLiteStore) -> None:
    half_way(sqlite_store)
    first, second = (Follower(sqlite_store, Statistics()) for _ in range(2))
    ProjectionRunner(sqlite_store).catch_up()
    half_way(sqlite_store)
    with pytest.raises(Late):
        _between(first, lambda: second.advance())
    ProjectionRunner(sqlite_store).catch_up()
    assert kept(sqlite_store) == made_anew(sqlite_store)


def _between(follower: Follower, act: Any) -> None:
    """Let `act` happen between what the follower reads and what it writes."""
    document = follower.projection.document

    class Slow(Statistics):
        def document(self, job: Job) -> Any:
            made = document(job)
            act()
            return made

    follower.projection = Slow()
    follower.advance()


# --- jobs it cannot follow -------------------------------------------------------------------------------------------


class Poisoned(Statistics):
    """Breaks on some jobs."""

    name = "poisoned"

    def __init__(self, *job_ids: str) -> None:
        self.job_ids = set(job_ids)

    def document(self, job: Job) -> Any:
        made = super().document(job)
        if job.state()["job_id"] in self.job_ids:
            raise ValueError("cannot be shown")
        return made


def test_poison_job_is_put_aside_for_that_projection_alone_and_others_go_on(store: Store) -> None:
    poison, healthy = half_way(store), half_way(store)
    projections: list[Projection] = [Poisoned(poison.job_id), Statistics(), ReportTable()]
    runner = ProjectionRunner(store, projections)
    runner.catch_up()
    assert [(job.projection, job.job_id, job.error) for job in store.projected.quarantined()] == [
        ("poisoned", poison.job_id, "ValueError: cannot be shown")
    ]
    for job in (poison, healthy):
        job.add(MORE)
    runner.catch_up()
    live = store.projected.checkpoints()
    keys = [healthy.job_id, poison.job_id]
    assert set(store.projected.documents("poisoned", live["poisoned"]["generation"], keys)) == {healthy.job_id}
    assert kept(store) == made_anew(store)


def test_damaged_job_is_put_aside_by_its_version(sqlite_store: SQLiteStore) -> None:
    job, healthy = half_way(sqlite_store), half_way(sqlite_store)
    with sqlite_store._writing() as connection:
        connection.execute("DROP TRIGGER events_refuse_update")
        connection.execute("UPDATE events SET type = 'JobTeleported' WHERE job_id = ? AND version = 4", (job.job_id,))
    ProjectionRunner(sqlite_store).catch_up()
    assert {(aside.projection, aside.job_id, aside.version) for aside in sqlite_store.projected.quarantined()} == {
        ("statistics", job.job_id, 4),
        ("report", job.job_id, 4),
    }
    (row,) = sqlite_store.projected.step_rows()
    assert row.job_id == healthy.job_id


class Refused(ReportTable):
    """Its row of one job is one that no table takes."""

    def rows(self, document: Any) -> list[StepRow]:
        (row,) = super().rows(document)
        return [row._replace(step_number="six")] if row.job_id == self.table_refuses else [row]  # type: ignore[arg-type]

    table_refuses = ""


def test_row_that_the_table_refuses_is_put_aside_and_others_are_written(postgres_store: Store) -> None:
    jobs = [half_way(postgres_store) for _ in range(3)]
    ProjectionRunner(postgres_store, [ReportTable()]).catch_up()
    for job in jobs:
        job.add(MORE)
    refusing = type("OfOne", (Refused,), {"table_refuses": jobs[1].job_id})()
    ProjectionRunner(postgres_store, [refusing]).catch_up()
    assert [job.job_id for job in postgres_store.projected.quarantined()] == [jobs[1].job_id]
    written = {row.job_id: row.updated_at for row in postgres_store.projected.step_rows()}
    assert [_progress_of(postgres_store, job) == _progress(job) for job in jobs] == [True, False, True], written


def _progress_of(store: Store, job: LoggedJob) -> Any:
    return next(orjson.loads(row.sub_step_progress) for row in store.projected.step_rows() if row.job_id == job.job_id)


def _progress(job: LoggedJob) -> Any:
    assert job.state
    return orjson.loads(step_row(job.state).sub_step_progress)


# --- rebuilding ------------------------------------------------------------------------------------------------------


def rebuild(store: Store, projection: Projection, *, stretches: int | None = None) -> bool:
    """Build the next generation, or so many stretches of it; whether it took over."""
    follower = Follower(store, projection)
    follower.begin()
    while next_name(projection.name) in store.projected.checkpoints():
        if stretches == 0:
            return False
        stretches = None if stretches is None else stretches - 1
        follower.build()
    return True


def test_rebuilt_is_what_was_kept_and_the_former_generation_goes(store: Store) -> None:
    for _ in range(3):
        half_way(store)
    runner = ProjectionRunner(store)
    runner.catch_up()
    before = kept(store)
    for projection in own_projections():
        assert rebuild(store, projection)
    runner.catch_up()
    assert kept(store) == before
    for name, live in store.projected.checkpoints().items():
        assert live["generation"] == 2
        assert store.projected.page(name, 1) == []


def test_tables_that_were_dropped_or_spoilt_are_right_again_after_a_rebuild(sqlite_store: SQLiteStore) -> None:
    for _ in range(3):
        half_way(sqlite_store)
    runner = ProjectionRunner(sqlite_store)
    runner.catch_up()
    before = kept(sqlite_store)
    with sqlite_store._writing() as connection:
        connection.execute("DELETE FROM projected")
        connection.execute("UPDATE registration_job_steps SET sub_step_progress = '{}'")
    for projection in own_projections():
        assert rebuild(sqlite_store, projection)
    runner.catch_up()
    assert kept(sqlite_store) == before


def test_live_projection_is_read_and_kept_while_the_next_one_is_built(store: Store) -> None:
    jobs = [half_way(store) for _ in range(3)]
    runner = ProjectionRunner(store)
    runner.catch_up()
    assert not rebuild(store, Statistics(), stretches=1)
    jobs[0].add(MORE)
    jobs.append(half_way(store))
    runner.catch_up()
    assert kept(store) == made_anew(store)
    assert rebuild(store, Statistics())
    assert kept(store) == made_anew(store)


def test_another_revision_is_built_before_anything_else(sqlite_store: SQLiteStore) -> None:
    half_way(sqlite_store)
    ProjectionRunner(sqlite_store, [Statistics()]).catch_up()

    class Revised(Statistics):
        revision = Statistics.revision + 1

        def tallies(self, document: Any) -> Mapping[str, Tally]:
            return {}

    ProjectionRunner(sqlite_store, [Revised()]).catch_up()
    live = sqlite_store.projected.checkpoints()["statistics"]
    assert (live["revision"], live["generation"]) == (Revised.revision, 2)
    assert read_statistics(sqlite_store) == []


class Killed(BaseException):
    """The process is gone."""


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(logs=st.lists(simulated_logs(), min_size=1, max_size=3), luck=st.randoms(use_true_random=False))
def test_rebuilt_equals_live_however_it_is_killed_and_whatever_is_appended(logs: list[SimulatedLog], luck: Any) -> None:
    """Runners and rebuilds are killed before or after any of their writes while jobs go on."""
    store = MemoryStore()
    waiting: list[tuple[LoggedJob, list[EventData]]] = [
        (LoggedJob(store, store.clock), facts_of(log.events)) for log in logs
    ]
    stored = store.projected.store

    def unlucky(change: Change) -> bool:
        if luck.random() < 0.2:
            raise Killed
        done = stored(change)
        if luck.random() < 0.2:
            raise Killed
        return done

    store.projected.store = unlucky  # type: ignore[method-assign]  # dies at random
    while waiting:
        act = luck.randrange(4)
        if act < 2:
            job, facts = luck.choice(waiting)
            count = luck.randint(1, 6)
            job.add(facts[:count])
            del facts[:count]
            waiting = [(job, facts) for job, facts in waiting if facts]
        else:
            projection = luck.choice(own_projections())
            try:
                if act == 2:
                    Follower(store, projection).advance()
                else:
                    rebuild(store, projection, stretches=luck.randint(1, 3))
            except (Killed, Late):
                continue
    store.projected.store = stored  # type: ignore[method-assign]
    ProjectionRunner(store).catch_up()
    before = kept(store)
    assert before == made_anew(store)
    for projection in own_projections():
        assert rebuild(store, projection)
    ProjectionRunner(store).catch_up()
    assert kept(store) == before


# --- the loop --------------------------------------------------------------------------------------------------------


def test_runner_goes_on_until_it_is_stopped_and_outlasts_a_store_that_is_away(sqlite_store: SQLiteStore) -> None:
    job = half_way(sqlite_store)
    away, feed = threading.Event(), sqlite_store.feed

    def sometimes(after: str | None = None, limit: int = 500) -> Any:
        if not away.is_set():
            away.set()
            raise StoreUnavailable
        return feed(after, limit)

    sqlite_store.feed = sometimes  # type: ignore[method-assign]  # away once
    with kept_current(sqlite_store):
        for _ in _until(lambda: _is_current(sqlite_store, job)):
            pass
        job.add(MORE)
        for _ in _until(lambda: _is_current(sqlite_store, job)):
            pass
    assert away.is_set()


def _until(condition: Any) -> Iterator[None]:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
        yield
    raise AssertionError("it never came")


def _is_current(store: Store, job: LoggedJob) -> bool:
    rows = store.projected.step_rows()
    return [orjson.loads(row.sub_step_progress) for row in rows] == [_progress(job)]


# --- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_say_how_often_and_how_long(store: Store) -> None:
    for seconds in (1.0, 2.0, 3.0, 40.0):
        job = LoggedJob(store)
        job.add([fact for _, fact in (created(), claimed(), started(0, "phase1/create_user"))])
        job.add([failed(1, "phase1/create_user", 0.5, TIMEOUT)[1], started(2, "phase1/create_user", 2)[1]])
        job.add([completed(3, "phase1/create_user", seconds, 2)[1]])
    runner = ProjectionRunner(store, [Statistics()])
    runner.catch_up()
    (found,) = read_statistics(store)
    assert (found.workflow, found.phase, found.sub_step) == ("registration", "phase1", "create_user")
    assert (found.attempts, found.completed, found.failed, found.failure_rate) == (8, 4, 4, 0.5)
    assert found.p50_s == pytest.approx(2.0, rel=0.025)
    assert found.p95_s == pytest.approx(40.0, rel=0.025)
    assert read_statistics(store, "another") == []


def test_of_a_fan_out_the_items_attempts_are_counted_and_not_the_group(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("fanned out")
    failing = {1}

    @wf.map(items=[0, 1, 2], retry=Retry(attempts=2, wait=0))
    def work(number: int) -> None:
        if number in failing:
            failing.clear()
            raise ValueError

    @wf.map(items=lambda job: [1 // 0], optional=True)
    def unlisted(number: int) -> None: ...

    wf.run(store=store)
    ProjectionRunner(store, [Statistics()]).catch_up()

    (found,) = read_statistics(store)
    assert (found.sub_step, found.attempts, found.completed, found.failed) == ("work", 4, 3, 1)


def test_nothing_is_counted_before_a_runner_ran(store: Store) -> None:
    half_way(store)
    assert read_statistics(store) == []


def test_document_of_a_group_is_no_job(store: Store) -> None:
    half_way(store)
    ProjectionRunner(store).catch_up()
    documents = store.projected.page("statistics", 1, limit=100)
    assert {type(document) for document in documents} == {Document}
    assert sum(document.key.startswith("=") for document in documents) == len(read_statistics(store))
