"""In the handler's process: find the handler, call it in the main thread, say what it reports and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, NoReturn

from steplog.engine.calling import Call, Given, error_data
from steplog.engine.channel import Channel
from steplog.engine.errors import AttemptOver, DefinitionError
from steplog.engine.facts import AttemptId, Fact, Failed
from steplog.engine.isolation import frames
from steplog.engine.isolation.code import Code
from steplog.engine.values import load
from steplog.engine.vault import vault_with
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.data_keys import DataKey


class Order(NamedTuple):
    """What the process is for, the first that it is told."""

    code: list[Any]
    of: list[Any]
    given: list[Any]
    data_keys: list[list[str]]
    """By job, the wrapped keys to the secrets in it."""


def work(connection: socket.socket) -> NoReturn:
    """Do what is ordered, say what came of it, and end this process."""
    said = frames.receive(connection)
    if said is None:
        os._exit(1)
    order = Order(*said)
    worker = _Worker(connection, AttemptId(*order.of))
    try:
        call = _call(order, worker)
    except BaseException as error:  # a module may raise anything as it is imported
        worker.end(Failed(worker.of, error_data(error, False, str), 0.0))
    worker.say([frames.READY])
    if call.sub_step.bindings.is_async:
        asyncio.run(_run_async(call, worker))
    worker.listen(call.channel, lambda: None)
    worker.end(call.run_plain())


async def _run_async(call: Call, worker: _Worker) -> NoReturn:
    loop = asyncio.get_running_loop()
    running = loop.create_task(call.run_async())
    worker.listen(call.channel, lambda: loop.call_soon_threadsafe(running.cancel))
    outcome = None
    with contextlib.suppress(asyncio.CancelledError):  # before it began
        outcome = await running
    worker.end(outcome)


def _call(order: Order, worker: _Worker) -> Call:
    definition = Code(*order.code).found()
    declared = definition.sub_steps.get(worker.of.key)
    sub_step = declared.undo if declared is not None and worker.of.undoing else declared
    if sub_step is None:
        raise DefinitionError(f"{definition.name} has no {worker.of.key} in the code that is there now")
    given = Given(*order.given)
    vault = vault_with(given.job_id, [DataKey(*key) for key in order.data_keys])
    channel = _Channel(worker.of, worker, SystemClock(), vault)
    return Call(worker.of, sub_step, given, definition, load(given.input, definition.input_type, vault), channel)


class _Channel(Channel):
    """Lines go to the worker at once: the last of them says what the process died of."""

    def log(self, lines: Any) -> None:
        super().log(lines)
        self._tell()


class _Worker:
    """Whom this process works for."""

    def __init__(self, connection: socket.socket, of: AttemptId) -> None:
        self.of = of
        self._pid = os.getpid()
        self._connection = connection
        self._saying = threading.Lock()
        self._waiting: list[Future[None]] = []
        """Checkpoints whose fate is not known yet, oldest first."""

    def say(self, said: frames.Said) -> None:
        framed = frames.framed(said)
        with self._saying:
            self._connection.sendall(framed)

    def post(self, fact: Fact, durable: Future[None] | None = None) -> None:
        framed = frames.framed(frames.told(fact))
        with self._saying:
            if durable is not None:
                self._waiting.append(durable)
            self._connection.sendall(framed)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()

    def end(self, outcome: Fact | None) -> NoReturn:
        """Say what came of it, and end: nobody cleans up behind a handler, its memory goes with the process."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a handler may have closed or replaced them
                stream.flush()
        if os.getpid() != self._pid:  # a child that the handler forked has come to the handler's end: it is not the one
            os._exit(_exit_code(outcome))
        self.say([frames.ENDED] if outcome is None else frames.told(outcome))
        os._exit(0)

    def listen(self, channel: Channel, interrupt: Callable[[], object]) -> None:
        """Hear, in a thread, what the worker says; without it nobody waits for this process."""
        threading.Thread(target=self._listen, args=(channel, interrupt), name="steplog-worker", daemon=True).start()

    def _listen(self, channel: Channel, interrupt: Callable[[], object]) -> None:
        while (said := frames.receive(self._connection)) is not None:
            match said[0]:
                case frames.CANCEL:
                    channel.cancel()
                case frames.END:
                    channel.end()
                case frames.INTERRUPT:
                    interrupt()
                case frames.DURABLE:
                    self._waiting.pop(0).set_result(None)
                case frames.OVER:
                    self._waiting.pop(0).set_exception(AttemptOver(said[1]))
        os._exit(1)


def _exit_code(outcome: Fact | None) -> int:
    """What a process that ended like this would say outside of steplog."""
    if not isinstance(outcome, Failed):
        return 0
    said = outcome.error["message"] if outcome.error["type"] == "SystemExit" else "1"
    return int(said) if said.isdecimal() else int(said not in ("", "None"))
