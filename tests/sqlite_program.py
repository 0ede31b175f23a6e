"""A process with a store on a SQLite file: `sqlite_program.py FILE`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from log_builder import LogBuilder, changed
from process_program import serve

from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import StoreError
from steplog.eventstore.sqlite import SQLiteStore

LEASE_S = 60.0


class Program:
    """The commands; each answers plain JSON, an error by its type's name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SQLiteStore(path)
        self.build = LogBuilder(SystemClock())

    def create(self) -> str:
        return self.store.create(self.build.job())

    def claim(self, job_id: str) -> str:
        """Claim the job for a new worker of this process; the worker's id or the error."""
        worker = self.build.worker()
        try:
            self.store.register_worker(worker, LEASE_S)
            self.store.claim(job_id, worker.worker_id, self.store.head(job_id).position, self.build.claiming())
        except StoreError as error:
            return type(error).__name__
        return worker.worker_id

    def append_locked(self, job_id: str, times: int) -> int:
        """Append that many events one by one; the version of the last."""
        known, version = self.store.head(job_id).position, 0
        for number in range(times):
            version = self.store.append_locked(job_id, known, self.build.proposing(changed(number)))
        return version

    def leave_child(self) -> int:
        """Fork a child that outlives this process; its process id."""
        from_child, to_parent = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(to_parent, b".")
            while True:
                time.sleep(60)
        os.read(from_child, 1)
        return pid

    def use_in_child(self) -> list[str]:
        """What comes of using the inherited store, and of opening the file anew, in a forked child."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            for number, act in enumerate((self.create, self._create_anew)):
                try:
                    act()
                except StoreError as error:
                    os.write(writing, f"{number} {type(error).__name__}\n".encode())
                else:
                    os.write(writing, f"{number} fine\n".encode())
            os._exit(0)
        os.close(writing)
        os.wait()
        with os.fdopen(reading) as outcomes:
            return outcomes.read().splitlines()

    def _create_anew(self) -> str:
        return SQLiteStore(self.path).create(self.build.job())

    def close(self) -> None:
        self.store.close()


if __name__ == "__main__":
    program = Program(Path(sys.argv[1]))
    serve(
        {
            name: getattr(program, name)
            for name in ("create", "claim", "append_locked", "leave_child", "use_in_child", "close")
        }
    )
