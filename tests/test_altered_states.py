"""A stored state is only gone on from where it is what was stored; else the log is folded from its beginning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from transactional_stores import opened_beside

from steplog import Step, Workflow
from steplog.engine.jobs import run_blocking
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.projections.evolve import fold
from steplog.projections.loading import Loaded, load, to_store

ALTERED = "update snapshots set state = cast(replace(cast(state as text), 'soup', 'stew') as {json})"
OF_AN_OLDER_VERSION = "update snapshots set digest = null"


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with closing(opened_beside(request.param, request, tmp_path)) as opened:
        opened.migrate()
        yield opened


def job_with_a_state(store: Store) -> Loaded:
    """An ended job of which the last state is stored."""
    wf = Workflow("cooking")

    @wf.sub_step
    def cook(step: Step) -> str:
        return "soup"

    loaded = load(store, run_blocking(wf, None, store=store).job_id)
    store.save_state(to_store(loaded))
    return loaded


def change(store: Store, statement: str) -> None:
    transaction = store.begin()
    json = "text" if isinstance(store, SQLiteStore) else "json"
    assert transaction.execute(statement.format(json=json)).rowcount == 1
    transaction.commit()


def test_what_was_stored_is_gone_on_from(store: Store) -> None:
    kept = job_with_a_state(store)
    assert load(store, kept.state["job_id"]).stored_at == kept.position.version


@pytest.mark.parametrize(
    ("statement", "warnings"), [(ALTERED, 1), (OF_AN_OLDER_VERSION, 0)], ids=["altered", "without a digest"]
)
def test_what_is_not_known_to_be_what_was_stored_is_not(
    store: Store, statement: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept = job_with_a_state(store)
    job_id = kept.state["job_id"]
    change(store, statement)

    loaded = load(store, job_id)

    assert (loaded.stored_at, loaded.state, loaded.position) == (0, kept.state, kept.position)
    assert loaded.state == fold(store.read(job_id))
    assert len(caplog.messages) == warnings
    assert all(job_id in said and str(kept.position.version) in said for said in caplog.messages)
