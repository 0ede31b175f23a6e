from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from log_builder import LogBuilder, changed

from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import StoredState
from steplog.testing.clock import VirtualClock


def test_stranger_with_the_sqlite3_shell_can_read_everything(tmp_path: Path) -> None:
    path, build = tmp_path / "log.db", LogBuilder(VirtualClock())
    with closing(SQLiteStore(path)) as store:
        job_id = store.create(build.job(key="r42", tags={"city": "Zürich"}))
        worker = build.worker()
        store.register_worker(worker, 60)
        position = store.head(job_id).position
        store.claim(job_id, worker.worker_id, position, build.claiming(changed({"menu": "Rösti"})))
        store.append_locked(job_id, position, lambda head, tail: None, request_id="r1")
        store.save_state(StoredState(job_id, position, 1, {"status": "queued"}))
    with closing(sqlite3.connect(path)) as raw:
        shown = "\n".join(raw.iterdump())
        assert "X'" not in shown, "a BLOB"
        (data,) = raw.execute("SELECT data FROM events WHERE type = 'ContextChanged'").fetchone()
        assert json.loads(data)["set"] == {"value": {"menu": "Rösti"}}
        assert "Rösti" in data


def test_feed_position_follows_the_order_of_commits(tmp_path: Path) -> None:
    path, build = tmp_path / "log.db", LogBuilder(VirtualClock())
    with closing(SQLiteStore(path)) as store:
        jobs = [store.create(build.job()) for _ in range(2)]
        for job_id in (*jobs, *jobs):
            store.append_locked(job_id, store.head(job_id).position, build.proposing(changed(1)))
    with closing(sqlite3.connect(path)) as raw:
        feed = raw.execute("SELECT job_id, version FROM events ORDER BY position").fetchall()
    assert feed == [(job_id, version) for version in (1, 2, 3) for job_id in jobs]
