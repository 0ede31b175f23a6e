"""A reader of the feed's tail misses nothing and sees nothing twice: under eight writers, some of whose transactions
stay open while it reads on, and where the log goes on from a dump or a backup.
"""

from __future__ import annotations

import random
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from append_witness import OwnedJob, owned_jobs
from postgres_cluster import Cluster
from psycopg import sql
from witness_figures import Show, skip_untested

from steplog.eventstore.errors import FeedMoved
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Code, HeadQuery, Store

WRITERS = 8
SLOW = 0.3
"""How many of the transactions stay open while the reader reads on."""
POLLS_MAX = 4
ANSWER_S_MAX = 60


class TailReader:
    """Goes on from its cursor; where the log is another one it looks at every job once."""

    def __init__(self, store: Store) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self.polls = 0
        self._store = store
        self._cursor: str | None = None
        self._polled = threading.Condition()

    def poll(self) -> int:
        """How many events came."""
        try:
            page = self._store.feed(self._cursor, 7)
        except FeedMoved:
            return self._look_at_all()
        self._cursor = page.cursor
        self.seen.update((entry.job_id, entry.version) for entry in page.entries)
        with self._polled:
            self.polls += 1
            self._polled.notify_all()
        return len(page.entries)

    def catch_up(self) -> None:
        while self.poll():
            pass

    def goes_on_with(self, store: Store) -> None:
        """The same reader, of what the store became."""
        self._store = store

    def await_polls(self, more: int) -> None:
        with self._polled:
            wanted = self.polls + more
            assert self._polled.wait_for(lambda: self.polls >= wanted, ANSWER_S_MAX)

    def _look_at_all(self) -> int:
        self._cursor = self._store.feed_end()
        known = Counter(job_id for job_id, _ in self.seen)
        missed = [
            (head.job_id, version)
            for head in self._store.heads(HeadQuery(limit=10_000))
            for version in range(known[head.job_id] + 1, head.version + 1)
        ]
        self.seen.update(missed)
        return len(missed)


def everything_once(store: Store) -> Counter[tuple[str, int]]:
    heads = store.heads(HeadQuery(limit=10_000))
    return Counter((head.job_id, version) for head in heads for version in range(1, head.version + 1))


@contextmanager
def tailed(reader: TailReader) -> Iterator[None]:
    """The reader reads in a thread of its own, and is up to the end afterwards."""
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            reader.poll()

    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read)
        try:
            yield
        finally:
            stop.set()
            reading.result()
    reader.catch_up()


def write(store: Store, job: OwnedJob, appends: int, reader: TailReader, luck: random.Random) -> None:
    """Appends of one to three events; a slow one is open while the reader reads on, beyond others that came later."""
    for number in range(appends):
        item = job.next(*range(number, number + luck.randint(1, 3)))
        if luck.random() < SLOW:
            transaction = store.begin()
            answer = transaction.append(item)
            reader.await_polls(luck.randint(1, POLLS_MAX))
            transaction.commit()
        else:
            (answer,) = store.append([item])
        assert answer.code is Code.STORED
        last = item.events[-1]
        job.end = job.end._replace(version=last.version, hash=last.hash, recorded_at=last.recorded_at)


def write_from_everywhere(stores: list[Store], appends: int, reader: TailReader, seed: int) -> None:
    jobs = owned_jobs(stores[0], WRITERS)
    with tailed(reader), ThreadPoolExecutor(WRITERS) as writers:
        writing = [
            writers.submit(write, stores[place % len(stores)], job, appends, reader, random.Random(seed + place))
            for place, job in enumerate(jobs)
        ]
        for each in writing:
            each.result(ANSWER_S_MAX * appends)


@pytest.fixture
def writers_stores(store: Store, request: pytest.FixtureRequest) -> Iterator[list[Store]]:
    """A store for each writer on PostgreSQL, so that no two share a connection; on SQLite one, which writes in turn."""
    if isinstance(store, SQLiteStore):
        yield [store]
        return
    dsn, schema = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("postgres_schema")
    stores: list[Store] = [PostgresStore(dsn, schema=schema) for _ in range(WRITERS)]
    yield stores
    for each in stores:
        each.close()


def test_tail_under_eight_writers_some_of_them_slow_is_whole_and_single(
    store: Store, writers_stores: list[Store]
) -> None:
    """Mutant: the feed goes on behind the newest transaction that it saw."""
    assert_whole_and_single(store, writers_stores, 8)


@pytest.mark.heavy
def test_long_tail_under_eight_writers_some_of_them_slow_is_whole_and_single(
    store: Store, writers_stores: list[Store], show: Show
) -> None:
    show(f"a tail under {WRITERS} writers", assert_whole_and_single(store, writers_stores, 250))


def assert_whole_and_single(store: Store, writers_stores: list[Store], appends: int) -> str:
    """What was read, in figures."""
    seed = random.SystemRandom().randrange(1 << 30)
    reader = TailReader(store)
    write_from_everywhere(writers_stores, appends, reader, seed)
    assert reader.seen == everything_once(store), f"seed {seed}"
    return f"{len(reader.seen)} events in {reader.polls} polls, seed {seed}, each once"


# --- a dump, a backup ------------------------------------------------------------------------------------------------


def pg_tool(cluster: Cluster, name: str, *arguments: str) -> None:
    tool = cluster.binaries / name
    if not tool.exists():
        skip_untested("A DUMP AND RESTORE", f"there is no {name} beside the server's binaries")
    subprocess.run([str(tool), *arguments], check=True, capture_output=True, timeout=120, cwd="/")


def next_transaction(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        ((number,),) = connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchall()
    return int(number)


def use_up_transactions(dsn: str, beyond: int) -> None:
    """Let the server's transactions be numbered beyond that."""
    count = max(0, beyond - next_transaction(dsn)) + 10
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("do $$ begin for i in 1..{} loop perform pg_current_xact_id(); commit; end loop; end $$").format(
                sql.Literal(count)
            )
        )
    assert next_transaction(dsn) > beyond


@pytest.mark.parametrize("further", ["the dumped server", "the server restored to"])
def test_tail_goes_on_from_a_dump_restored_elsewhere(
    postgres_dsn: str,
    postgres_store: PostgresStore,
    postgres_schema: str,
    own_cluster: Cluster,
    tmp_path: Path,
    further: str,
) -> None:
    """Wherever transactions are numbered higher: what is restored is seen at once, and does not come again.

    Mutant: a restored event keeps the number of the transaction that wrote it on another server.
    """
    other = own_cluster.dsn
    ahead, behind = (postgres_dsn, other) if further == "the dumped server" else (other, postgres_dsn)
    use_up_transactions(ahead, next_transaction(behind) + 500)
    reader, dump = TailReader(postgres_store), str(tmp_path / "dump")
    job, *_ = owned_jobs(postgres_store, 3)
    reader.catch_up()
    postgres_store.append([job.next("not read before the dump")])

    quiet = ["--no-owner", "--no-privileges"]
    pg_tool(own_cluster, "pg_dump", "-d", postgres_dsn, "-n", postgres_schema, "-Fc", *quiet, "-f", dump)
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(postgres_schema)))
    pg_tool(own_cluster, "pg_restore", "-d", other, *quiet, dump)

    with closing(PostgresStore(other, schema=postgres_schema)) as restored:
        fresh = TailReader(restored)
        fresh.catch_up()
        assert fresh.seen == everything_once(restored)
        reader.goes_on_with(restored)
        reader.catch_up()
        owned_jobs(restored, 2)
        use_up_transactions(other, next_transaction(postgres_dsn))
        for each in (fresh, reader):
            each.catch_up()
            assert each.seen == everything_once(restored)


def test_tail_goes_on_from_a_dump_restored_in_place(
    postgres_dsn: str, postgres_store: PostgresStore, postgres_schema: str, own_cluster: Cluster, tmp_path: Path
) -> None:
    """The schema is gone and comes back on the same server."""
    reader, dump = TailReader(postgres_store), str(tmp_path / "dump")
    owned_jobs(postgres_store, 3)
    reader.catch_up()
    pg_tool(own_cluster, "pg_dump", "-d", postgres_dsn, "-n", postgres_schema, "-Fc", "-f", dump)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(postgres_schema)))
    pg_tool(own_cluster, "pg_restore", "-d", postgres_dsn, dump)
    owned_jobs(postgres_store, 2)
    reader.catch_up()
    assert reader.seen == everything_once(postgres_store)


def test_tail_goes_on_from_a_backup_of_a_file(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "log.db")) as store:
        reader = TailReader(store)
        (job,) = owned_jobs(store, 1)
        reader.catch_up()
        store.append([job.next("not read before the backup")])
        store.backup(tmp_path / "backup.db")
    with closing(SQLiteStore(tmp_path / "backup.db")) as restored:
        reader.goes_on_with(restored)
        owned_jobs(restored, 2)
        reader.catch_up()
        assert reader.seen == everything_once(restored)
