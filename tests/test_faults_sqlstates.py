"""Every class of SQLSTATE, raised by the database at the statement and at COMMIT: tried again, unknown, or refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Literal

import psycopg
import pytest
from append_witness import OwnedJob, Witness, WitnessedStore, append_one, owned_jobs
from psycopg import sql

from steplog.eventstore.errors import StoreDamaged, StoreError, StoreNotMigrated, StoreUnavailable
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.writer import Writer

SCHEMA = f"sqlstates_{os.getpid()}"
TIMES = 2
"""How often the database raises before it lets the append pass."""

PASSING = {
    "retried": ["40001", "40P01", "55P03"],
    "elsewhere": ["25006"],
    "unknown": ["08000", "08006", "40003", "57014", "57P01", "57P02", "57P03", "58000", "58030"],
    "waited for": ["25P03", "28000", "3D000", "53000", "53100", "53200", "53300", "53400", "55000", "55006"],
}
FINAL: dict[str, type[StoreError]] = {
    "0A000": StoreError,
    "22003": StoreError,
    "22P02": StoreError,
    "23505": StoreError,
    "23514": StoreError,
    "3F000": StoreNotMigrated,
    "42501": StoreError,
    "42703": StoreNotMigrated,
    "42883": StoreNotMigrated,
    "42P01": StoreNotMigrated,
    "54000": StoreError,
    "P0001": StoreError,
    "XX000": StoreError,
    "XX001": StoreDamaged,
    "XX002": StoreDamaged,
}
Moment = Literal["statement", "commit"]
MOMENTS: list[Moment] = ["statement", "commit"]


class Raising:
    """Makes the database raise where events are inserted, or where that is committed."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def raise_at(self, moment: Moment, state: str, times: int) -> None:
        """The count is a sequence's: it survives the rollback."""
        execute = self._connection.execute
        execute("create sequence raised")
        execute(
            sql.SQL(
                "create function raise_state() returns trigger language plpgsql as $$ begin"
                " if nextval(tg_table_schema || '.raised') <= {} then raise exception 'as asked' using errcode = {};"
                " end if; return new; end $$"
            ).format(times, state)
        )
        if moment == "statement":
            execute("create trigger raising before insert on events for each row execute function raise_state()")
        else:
            execute(
                "create constraint trigger raising after insert on events deferrable initially deferred"
                " for each row execute function raise_state()"
            )

    def raised(self) -> int:
        """How often it was asked."""
        ((times,),) = self._connection.execute("select last_value from raised").fetchall()
        return int(times)

    def stop(self) -> None:
        self._connection.execute("drop function if exists raise_state cascade")
        self._connection.execute("drop sequence if exists raised")


@pytest.fixture(scope="module")
def store(postgres_dsn: str) -> Iterator[PostgresStore]:
    """One for all tests here: making a schema takes longer than each of them."""
    with closing(PostgresStore(postgres_dsn, schema=SCHEMA)) as store:
        store.migrate()
        yield store
    with psycopg.connect(postgres_dsn, options="-c client_min_messages=warning") as connection:
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(SCHEMA)))


@pytest.fixture
def raising(postgres_dsn: str, store: PostgresStore) -> Iterator[Raising]:
    with psycopg.connect(postgres_dsn, autocommit=True, options="-c client_min_messages=warning") as connection:
        connection.execute(sql.SQL("set search_path to {}").format(sql.Identifier(SCHEMA)))
        raising = Raising(connection)
        yield raising
        raising.stop()


@pytest.fixture
def job(store: PostgresStore) -> OwnedJob:
    return owned_jobs(store, 1)[0]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("state", "group"), [(state, group) for group, states in PASSING.items() for state in states])
def test_an_error_that_passes_is_outlived_and_the_append_stored_once(
    store: PostgresStore, job: OwnedJob, raising: Raising, state: str, group: str, moment: Moment
) -> None:
    """Mutants: the row's kind is taken for refused; the store's own retries count for nothing."""
    witness = Witness()
    raising.raise_at(moment, state, TIMES)
    witnessed: Any = WitnessedStore(store, witness)
    with closing(Writer(witnessed)) as writer:
        append_one(writer, job, witness, "a")
    figures = witness.figures(store, [job])
    assert (figures.lost, figures.doubled, figures.stored) == (0, 0, 1)
    assert raising.raised() == TIMES + 1
    assert figures.unknown == (0 if group in ("retried", "elsewhere") else TIMES)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("state", "error"), FINAL.items(), ids=FINAL)
def test_an_error_that_does_not_pass_is_typed_and_told_once(
    store: PostgresStore, job: OwnedJob, raising: Raising, state: str, error: type[StoreError], moment: Moment
) -> None:
    """Mutant: what is refused is sent again and again."""
    raising.raise_at(moment, state, 1_000_000)
    with closing(Writer(store)) as writer:
        with pytest.raises(StoreError) as refused:
            append_one(writer, job, Witness(), "a")
        assert raising.raised() == 1
        raising.stop()
        append_one(writer, job, Witness(), "b")
    assert type(refused.value) is error
    assert not isinstance(refused.value, StoreUnavailable) or error is StoreDamaged
    assert [event.data["set"]["value"] for event in store.read(job.id, after=1)] == ["b"]
