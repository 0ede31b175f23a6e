"""What projections keep is held against the log: a changed document, row or total is named, a late one is no damage."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from logged_jobs import LoggedJob
from shown_jobs import HALF_WAY, completed, created, started

from steplog.engine.verification import verify_all, verify_job
from steplog.eventstore.projected import Change, Document, StepRow
from steplog.eventstore.store import Store
from steplog.projections.following import Follower
from steplog.projections.kept_documents import KeptDocuments
from steplog.projections.projecting import Job, is_group
from steplog.projections.report_table import ReportTable
from steplog.projections.runner import ProjectionRunner, own_projections
from steplog.projections.statistics import Statistics
from steplog.projections.verification import Finding

HALF_WAY_FACTS = [fact for _, fact in HALF_WAY]
MORE = [started(53.0, "phase2/menu_import", 2)[1], completed(54.0, "phase2/menu_import", 1.0, 2)[1]]


def half_way(store: Store) -> LoggedJob:
    job = LoggedJob(store)
    job.add(HALF_WAY_FACTS)
    return job


def current(store: Store) -> LoggedJob:
    """A job in a store whose projections are up to it."""
    job = half_way(store)
    half_way(store)
    ProjectionRunner(store).catch_up()
    return job


def found(store: Store) -> list[Finding]:
    return list(verify_all(store, kept=[KeptDocuments(store, each) for each in own_projections()]))


def found_of(store: Store, job_id: str) -> list[tuple[str | None, int]]:
    kept = [KeptDocuments(store, each) for each in own_projections()]
    return [(each.job_id, each.version) for each in verify_job(store, job_id, kept=kept)]


def documents(store: Store, name: str) -> list[Document]:
    return store.projected.page(name, generation_of(store, name))


def generation_of(store: Store, name: str) -> int:
    return int(store.projected.checkpoints()[name]["generation"])


def put(store: Store, name: str, documents: Sequence[Document] = (), rows: Sequence[StepRow] = ()) -> None:
    """What no runner would write."""
    assert store.projected.store(Change(name, [], generation_of(store, name), documents, rows=rows))


def test_what_the_runner_keeps_has_no_findings_at_any_time(store: Store) -> None:
    assert found(store) == []
    job = half_way(store)
    assert found(store) == []
    ProjectionRunner(store).catch_up()
    assert found(store) == []
    job.add(MORE)
    assert found(store) == []


@pytest.mark.parametrize("name", ["statistics", "report"])
def test_document_that_was_changed_is_named_by_its_job(store: Store, name: str) -> None:
    job = current(store)
    (document,) = store.projected.documents(name, generation_of(store, name), [job.job_id]).values()
    put(store, name, [document._replace(data={**document.data, "workflow": "other", "status": "completed"})])
    assert (job.job_id, document.version) in found_of(store, job.job_id)
    assert {each.job_id for each in found(store)} <= {job.job_id, None}


@pytest.mark.parametrize("beyond", [-1, 1])
def test_document_of_another_version_of_the_job_is_found(store: Store, beyond: int) -> None:
    job = current(store)
    (document,) = store.projected.documents("report", 1, [job.job_id]).values()
    put(store, "report", [document._replace(version=document.version + beyond)])
    assert found_of(store, job.job_id)[0] == (job.job_id, document.version + beyond)


def test_document_that_is_missing_is_found_once_the_projection_is_beyond_the_job(store: Store) -> None:
    job = current(store)
    assert store.projected.remove("report", 1) == 2
    assert found_of(store, job.job_id) == [(job.job_id, 1)]
    half_way(store)
    assert found_of(store, job.job_id) == [], "there is something that it has not taken in yet"


def test_row_of_the_table_that_was_changed_is_named_by_its_job(store: Store) -> None:
    job = current(store)
    row = next(row for row in store.projected.step_rows() if row.job_id == job.job_id)
    put(store, "report", rows=[row._replace(status="completed")])
    assert found_of(store, job.job_id) == [(job.job_id, job.position.version)]


def test_row_of_two_jobs_with_one_key_is_either_one_s(store: Store) -> None:
    jobs = [LoggedJob(store), LoggedJob(store)]
    for job, workflow in zip(jobs, ("a", "b"), strict=True):
        job.add([created(key="r42")[1].model_copy(update={"workflow": workflow})])
    ProjectionRunner(store).catch_up()
    kept = KeptDocuments(store, ReportTable())
    assert [list(kept.wrong_of(job.job_id)) for job in jobs] == [[], []]


def test_total_that_is_not_the_sum_of_its_jobs_is_found(store: Store) -> None:
    current(store)
    total = next(each for each in documents(store, "statistics") if is_group(each.key))
    put(store, "statistics", [total._replace(data={"completed": 77})])
    (finding,) = found(store)
    assert (finding.job_id, finding.version) == (None, 0)
    assert total.key in finding.why


def test_document_without_a_job_is_found(store: Store) -> None:
    current(store)
    nobody = "01a21000-0000-7000-8000-000000000000"
    put(store, "report", [Document(nobody, 3, {"job_id": nobody})])
    assert [(each.job_id, each.version) for each in found(store)] == [(nobody, 3)]


def test_job_that_was_put_aside_is_no_finding(store: Store) -> None:
    job = half_way(store)

    class Fails(Statistics):
        def document(self, job: Job) -> object:
            raise ValueError("poison")

    follower = Follower(store, Fails())
    while follower.advance():
        pass
    assert found_of(store, job.job_id) == []
