"""Processes of the tests that begin with the package imported: each is forked from a server that has done nothing else.

There is one such server for all tests of a process, and what it imports counts from the first fork on: so it is listed
here alone. The server knows no path of the tests, so their own modules are imported by each process for itself.
"""

from __future__ import annotations

import multiprocessing

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["steplog.engine.jobs", "steplog.eventstore.postgres", "steplog.eventstore.sqlite"])
