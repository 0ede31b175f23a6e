"""Connections that handlers' transactions share one after the other: each finds its session as if it were new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from message_proxy import MessageProxy, Point
from psycopg.conninfo import make_conninfo
from transactional_stores import make_table, postgres_beside

from steplog.eventstore import postgres_lending
from steplog.eventstore.errors import OutcomeUnknown, StatementFailed, StoreError, StoreUnavailable, TransactionEnded
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import StoreTransaction


@pytest.fixture
def store(postgres_dsn: str, postgres_schema: str) -> Iterator[PostgresStore]:
    with closing(postgres_beside(postgres_dsn, postgres_schema)) as store:
        store.migrate()
        make_table(store)
        yield store


def ask(transaction: StoreTransaction, question: str) -> object:
    """The one value that the question gives."""
    ((value,),) = transaction.execute(question).fetchall()
    return value


def pid_of(transaction: StoreTransaction) -> object:
    return ask(transaction, "select pg_backend_pid()")


def once(store: PostgresStore, *statements: str, commit: bool) -> object:
    """A handler that does that; the server's process that served it."""
    transaction = store.begin()
    pid = pid_of(transaction)
    for statement in statements:
        transaction.execute(statement)
    if commit:
        transaction.commit()
    transaction.roll_back()
    return pid


def test_the_next_transaction_has_the_same_connection(store: PostgresStore) -> None:
    pids = {once(store, "insert into effects values ('menu')", commit=commit) for commit in (True, False, True, False)}
    assert len(pids) == 1


LEFT_BEHIND = {
    "a setting": ("set work_mem = '7MB'", "select current_setting('work_mem') = '7MB'"),
    "durability": ("set synchronous_commit = off", "select current_setting('synchronous_commit') = 'off'"),
    "a search path": ("set search_path = pg_catalog", "select current_setting('search_path') = 'pg_catalog'"),
    "a setting of its own": ("set handler.secret = 'x'", "select current_setting('handler.secret', true) = 'x'"),
    "isolation": (
        "set session characteristics as transaction isolation level serializable",
        "select current_setting('default_transaction_isolation') = 'serializable'",
    ),
    "a time limit": ("set statement_timeout = '1ms'", "select current_setting('statement_timeout') = '1ms'"),
    "a role": ("set role pg_read_all_data", "select current_user = 'pg_read_all_data'"),
    "an identity": ("set session authorization pg_monitor", "select session_user = 'pg_monitor'"),
    "a temporary table": ("create temp table left_over ()", "select to_regclass('pg_temp.left_over') is not null"),
    "a temporary function": (
        "create function pg_temp.f() returns int language sql as 'select 1'",
        "select exists (select from pg_proc where proname = 'f' and pronamespace = pg_my_temp_schema())",
    ),
    "a prepared statement": (
        "prepare left_over as select 1",
        "select exists (select from pg_prepared_statements where name = 'left_over')",
    ),
    "a cursor": (
        "declare left_over cursor with hold for select 1",
        "select exists (select from pg_cursors where name = 'left_over')",
    ),
    "a session's lock": (
        "select pg_advisory_lock(77)",
        "select exists (select from pg_locks where locktype = 'advisory' and objid = 77)",
    ),
    "an ear": ("listen left_over", "select exists (select from pg_listening_channels())"),
    "a sequence's value": (
        "create temp sequence counted; select nextval('counted')",
        "select pg_sequence_last_value(to_regclass('pg_temp.counted')) is not null",
    ),
}


@pytest.mark.parametrize("commit", [True, False], ids=["committed", "rolled back"])
@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_nothing_is_left_of_what_a_handler_did_to_its_session(store: PostgresStore, left: str, commit: bool) -> None:
    statements, question = LEFT_BEHIND[left]
    pid = once(store, *statements.split("; "), commit=commit)

    after = store.begin()
    found = (pid_of(after), ask(after, question))
    after.roll_back()

    assert found == (pid, False) or found == (pid, None)


@pytest.mark.parametrize("commit", [True, False], ids=["committed", "rolled back"])
def test_a_sessions_lock_is_free_as_soon_as_the_transaction_is_over(
    store: PostgresStore, postgres_dsn: str, commit: bool
) -> None:
    once(store, "select pg_advisory_lock(78)", commit=commit)
    with psycopg.connect(postgres_dsn, autocommit=True) as other:
        assert other.execute("select pg_try_advisory_lock(78)").fetchall() == [(True,)]


def test_a_handler_whose_statement_failed_leaves_a_connection_that_is_sound(store: PostgresStore) -> None:
    transaction = store.begin()
    pid = pid_of(transaction)
    with pytest.raises(StatementFailed):
        transaction.execute("select nothing from nowhere")
    transaction.roll_back()
    assert once(store, "insert into effects values ('menu')", commit=True) == pid


def test_a_connection_whose_transaction_was_ended_by_its_handler_is_not_used_again(store: PostgresStore) -> None:
    transaction = store.begin()
    pid = pid_of(transaction)
    with pytest.raises(TransactionEnded):
        transaction.execute("commit")
    transaction.roll_back()
    assert once(store, commit=False) != pid


def test_a_connection_that_broke_at_its_commit_is_not_used_again(
    postgres_dsn: str, postgres_schema: str, store: PostgresStore
) -> None:
    with MessageProxy(postgres_dsn) as proxy, closing(postgres_beside(proxy.dsn, postgres_schema)) as cut:
        transaction = cut.begin()
        pid = pid_of(transaction)
        proxy.arm(Point("server", 1, "before"))
        with pytest.raises(OutcomeUnknown):
            transaction.commit()
        assert once(cut, commit=False) != pid


def test_a_connection_that_went_stale_is_replaced_before_the_handler_begins(
    store: PostgresStore, postgres_dsn: str
) -> None:
    pid = once(store, commit=True)
    with psycopg.connect(postgres_dsn, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", [pid])
    assert once(store, "insert into effects values ('menu')", commit=True) != pid


def test_a_connection_that_can_only_read_is_not_used_again(
    postgres_dsn: str, postgres_schema: str, store: PostgresStore
) -> None:
    """The server that it leads to may have become a standby."""
    dsn = make_conninfo(postgres_dsn, options="-c default_transaction_read_only=on")
    with closing(PostgresStore(dsn, schema=postgres_schema)) as reading:
        assert once(reading, commit=False) != once(reading, commit=False)


def test_no_more_are_open_at_once_than_the_bound(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_lending, "WAIT_S_MAX", 0.01)
    opened = [store.begin() for _ in range(postgres_lending.LENT_MAX)]
    with pytest.raises(StoreUnavailable, match="16 handlers' transactions are open"):
        store.begin()
    opened.pop().roll_back()
    opened.append(store.begin())
    for transaction in opened:
        transaction.roll_back()


def test_who_waits_for_one_gets_it_when_it_comes_back(store: PostgresStore) -> None:
    opened = [store.begin() for _ in range(postgres_lending.LENT_MAX)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: once(store, commit=True))
        pids = [pid_of(transaction) for transaction in opened]
        for transaction in opened:
            transaction.roll_back()
        assert waiting.result() in pids


def test_what_is_lent_when_the_store_closes_is_closed_when_it_comes_back(
    store: PostgresStore, postgres_dsn: str
) -> None:
    kept, lent = store.begin(), store.begin()
    pids = [pid_of(kept), pid_of(lent)]
    kept.roll_back()
    store.close()
    lent.roll_back()
    with pytest.raises(StoreError, match="the store is closed"):
        store.begin()
    with psycopg.connect(postgres_dsn, autocommit=True) as other:
        gone = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where pid = any(%s)"
        assert all(ended for (ended,) in other.execute(gone, [pids]))  # those that are still on their way out


def test_what_nobody_has_wanted_for_long_is_closed(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = once(store, commit=True)
    monkeypatch.setattr(postgres_lending, "KEPT_S_MAX", -1.0)
    assert once(store, commit=True) != pid


def test_a_forked_process_has_none_of_them(store: PostgresStore) -> None:
    once(store, commit=True)
    child = os.fork()
    if child == 0:
        refused = 1
        try:
            store.begin()
        except StoreUnavailable:
            refused = 0
        finally:
            os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
