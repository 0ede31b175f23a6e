"""The lane for suspects: of all jobs of a worker, one at a time runs what may kill the process.

A job that kills its process then parks for its own deaths, and its neighbours, which died with it, go on.
"""

from __future__ import annotations

from collections.abc import Callable


class Lane:
    """Held by one job at a time; on the event loop's thread alone."""

    def __init__(self) -> None:
        self._holder: str | None = None
        self._waiting: dict[str, Callable[[], None]] = {}

    def enter(self, job_id: str, wake: Callable[[], None]) -> bool:
        """Whether the job has the lane; if not, `wake` is called once it may be free."""
        if self._holder in (None, job_id):
            self._holder = job_id
            self._waiting.pop(job_id, None)
            return True
        self._waiting[job_id] = wake
        return False

    def is_held_by(self, job_id: str) -> bool:
        """Whether that job has it."""
        return self._holder == job_id

    def leave(self, job_id: str) -> None:
        """The job does not hold it any more; if it waits for it, it goes on to."""
        if self._holder == job_id:
            self._holder = None
            waiting, self._waiting = self._waiting, {}
            for wake in waiting.values():
                wake()
