"""Workflows whose handlers run in processes of their own, in a module that such a process can import."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from steplog import Context, Fatal, Retry, Skip, Step, Workflow, result, use

IMPORTED_IN = os.getpid()
HARMLESS_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LEAK: list[bytes] = []


class Where(BaseModel, frozen=True):
    """A folder, for what a handler leaves outside."""

    folder: Path


class Seen(BaseModel, frozen=True):
    """What a handler saw of itself."""

    pid: int
    cursor: Any
    files: list[str]
    attempt: int
    resource: str


class Files(Context):
    files: list[str] = []


# --- what any handler has --------------------------------------------------------------------------------------------


def opened() -> Iterator[str]:
    where = Path(os.environ["ISOLATED_TEST_FOLDER"]) / "resource"
    where.write_text(f"opened in {os.getpid()}")
    yield where.read_text()
    where.write_text(f"closed in {os.getpid()}")


facade = Workflow("facade", input=Where, context=Files)


@facade.sub_step(isolate="process", retry=Retry(attempts=2, wait=0))
def plain(step: Step[Where, Files], resource: str = use(opened)) -> Seen:
    if step.attempt == 1:
        step.context.files.append("kept")
        step.log("a line")
        step.progress(1, 2, "half")
        step.checkpoint({"at": 7})
        step.context.files.append("lost")
        raise ValueError("once more")
    return Seen(pid=os.getpid(), cursor=step.cursor, files=step.context.files, attempt=step.attempt, resource=resource)


@facade.sub_step(isolate="process")
async def asynchronous(step: Step[Where, Files], seen: Seen = result(plain)) -> tuple[int, int]:
    await step.checkpoint([1])
    await asyncio.gather(step.checkpoint([2]), step.checkpoint([3]))
    return seen.pid, os.getpid()


@facade.sub_step(isolate="process", after=[plain])
def skips(step: Step[Where, Files]) -> None:
    raise Skip(f"nothing in {step.input.folder.name}")


# --- what handlers do to whoever runs them ---------------------------------------------------------------------------


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raises(error: BaseException) -> Callable[[], Any]:
    def deed() -> None:
        raise error

    return deed


def recursion() -> int:
    return recursion() + 1


def babbles() -> None:
    """Write what is no frame into every socket there is."""
    for file in range(3, 64):
        try:
            os.write(file, b"\xff" * 64)
        except OSError:
            continue
    signal.pause()


def forks_and_dies() -> None:
    left = subprocess.Popen(["sleep", "60"])
    with (Path(os.environ["ISOLATED_TEST_FOLDER"]) / "left").open("a") as noted:
        noted.write(f"{left.pid}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def obeys_no_signal_of_the_group() -> str:
    for number in HARMLESS_SIGNALS:
        os.kill(os.getpid(), number)
    return "still here"


def forks_and_returns() -> str:
    """Parent and child both come to the end of the handler."""
    child = os.fork()
    if child == 0:
        return "the child's"
    return f"the parent's, of a child that ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


def forks_and_exits() -> str:
    child = os.fork()
    if child == 0:
        sys.exit(5)
    return f"the parent's, of a child that ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


DEEDS: dict[str, Callable[[], Any]] = {
    "SystemExit": lambda: sys.exit(3),
    "KeyboardInterrupt": raises(KeyboardInterrupt()),
    "CancelledError": raises(asyncio.CancelledError()),
    "Unspeakable": raises(Unspeakable()),
    "RecursionError": recursion,
    "Fatal": raises(Fatal("no more")),
    "no JSON": object,
    "too large": lambda: "x" * (2 << 20),
    "much printed": lambda: None if sys.stdout.write("x" * 100_000) else "nothing",
    "exit code": lambda: os._exit(7),
    "killed": forks_and_dies,
    "crash": lambda: ctypes.string_at(0),
    "closes everything": lambda: os.closerange(3, 64),
    "babbles": babbles,
    "signals": obeys_no_signal_of_the_group,
    "forks and returns": forks_and_returns,
    "forks and exits": forks_and_exits,
    "good": lambda: "good",
}

hostile = Workflow("hostile", deadline="30s")


@hostile.map(items=list(DEEDS), isolate="process", optional=True, parallel=4)
def plainly(deed: str, step: Step) -> str | None:
    step.log(f"about to do {deed}")
    step.log("now")
    done: str | None = DEEDS[deed]()
    return done


@hostile.map(items=list(DEEDS), isolate="process", optional=True, parallel=4)
async def asynchronously(deed: str, step: Step) -> str | None:
    step.log(f"about to do {deed}")
    done: str | None = DEEDS[deed]()
    return done


# --- memory ----------------------------------------------------------------------------------------------------------

leaky = Workflow("leaky")


@leaky.map(items=range(4), isolate="process", parallel=2)
def leaks(item: int) -> dict[str, int]:
    LEAK.append(b"x" * (1 << 24))
    return {"leaked": len(LEAK), "pid": os.getpid(), "imported_in": IMPORTED_IN}


# --- time ------------------------------------------------------------------------------------------------------------

slow = Workflow("slow", input=Where)


@slow.sub_step(isolate="process", timeout="300ms", retry=Retry(attempts=2, wait=0))
def deaf(step: Step[Where]) -> bool:
    """The first attempt never ends; the second says whether that is still there."""
    pid = step.input.folder / "pid"
    if step.attempt == 1:
        pid.write_text(str(os.getpid()))
        sum(range(10**15))  # no other thread of the process runs meanwhile
    return Path(f"/proc/{pid.read_text()}").exists()


@slow.sub_step(isolate="process", timeout="300ms", optional=True)
async def cleans_up(step: Step[Where]) -> None:
    step.log("before the timeout")
    try:
        await asyncio.sleep(60)
    finally:
        (step.input.folder / "cleaned").write_text(str(step.cancelled))


endless = Workflow("endless", input=Where)


@endless.sub_step(isolate="process")
def computes(step: Step[Where]) -> None:
    """Holds a pipe open while it lives, and looks at nothing."""
    with open(step.input.folder / "alive", "w") as alive:
        alive.write("begun\n")
        alive.flush()
        sum(range(10**15))


polite = Workflow("polite", input=Where)


@polite.sub_step(isolate="process")
def stops(step: Step[Where]) -> None:
    with open(step.input.folder / "alive", "w") as alive:
        alive.write("begun\n")
        alive.flush()
        while not step.cancelled:
            signal.sigtimedwait([], 0.01)
        (step.input.folder / "stopped").touch()
        step.raise_if_cancelled()


# --- undoing ---------------------------------------------------------------------------------------------------------

undone = Workflow("undone", input=Where, compensate_on=["failed"])


@undone.sub_step
def charge(step: Step[Where]) -> str:
    return "receipt"


@undone.compensate(charge, isolate="process")
def refund(step: Step[Where], receipt: str = result(charge)) -> None:
    (step.input.folder / "refunded").write_text(json.dumps([receipt, os.getpid(), step.idempotency_key]))


@undone.sub_step(after=[charge])
def fails() -> None:
    raise Fatal("undo it")
