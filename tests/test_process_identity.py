"""A process is certainly dead only where everything about it can be read and compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from steplog.eventstore.process_identity import certainly_dead, own_identity
from steplog.eventstore.store import WorkerIdentity

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="needs Linux's /proc")

_REPORT = """
import dataclasses, json, sys
from steplog.eventstore.process_identity import own_identity
print(json.dumps(dataclasses.asdict(own_identity("worker"))), flush=True)
sys.stdin.read()
"""


class Child:
    """Another process and the identity it gives itself."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [*command, sys.executable, "-c", _REPORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def identity(self) -> WorkerIdentity | None:
        assert self.process.stdout
        line = self.process.stdout.readline()
        return WorkerIdentity(**json.loads(line)) if line else None

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    started = Child()
    yield started
    started.end()


@pytest.fixture
def living(child: Child) -> WorkerIdentity:
    identity = child.identity()
    assert identity
    return identity


def test_a_living_process_is_not_dead(living: WorkerIdentity) -> None:
    assert None not in (living.boot_id, living.pid_namespace, living.process_started)
    assert not certainly_dead(living)
    assert not certainly_dead(own_identity("this"))


def test_a_killed_process_is_dead_once_it_is_gone(child: Child, living: WorkerIdentity) -> None:
    child.process.kill()
    child.process.wait()

    assert certainly_dead(living)


def test_a_killed_process_that_nobody_waited_for_is_dead(child: Child, living: WorkerIdentity) -> None:
    os.kill(child.process.pid, 9)
    os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)

    assert certainly_dead(living)


def test_a_process_id_that_serves_another_process_is_dead(living: WorkerIdentity) -> None:
    assert living.process_started
    assert certainly_dead(replace(living, process_started=str(int(living.process_started) - 1)))


@pytest.mark.parametrize("part", ["boot_id", "pid_namespace", "process_started"])
def test_what_could_not_be_read_is_not_certain(child: Child, living: WorkerIdentity, part: str) -> None:
    child.end()

    unread: dict[str, Any] = {part: None}
    assert not certainly_dead(replace(living, **unread))


@pytest.mark.parametrize("part", ["host", "boot_id", "pid_namespace"])
def test_a_process_of_another_place_is_not_certainly_dead(child: Child, living: WorkerIdentity, part: str) -> None:
    child.end()

    moved: dict[str, Any] = {part: "another"}
    assert not certainly_dead(replace(living, **moved))


@pytest.mark.heavy
def test_a_process_in_another_pid_namespace_is_not_certainly_dead() -> None:
    isolated = Child("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    try:
        identity = isolated.identity()
        if identity is None:
            pytest.skip("this machine makes no pid namespaces")
        assert identity.pid_namespace not in (None, own_identity("this").pid_namespace)
        assert not certainly_dead(identity)
    finally:
        isolated.end()


@pytest.mark.heavy
def test_a_proc_that_shows_another_namespace_gives_no_identity() -> None:
    isolated = Child("unshare", "--user", "--map-root-user", "--pid", "--fork")
    try:
        identity = isolated.identity()
        if identity is None:
            pytest.skip("this machine makes no pid namespaces")
        assert identity.pid_namespace is None
    finally:
        isolated.end()
