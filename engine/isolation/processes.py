"""The worker's side: a template for each set of modules, and the handler's process that is forked from it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections import deque
from concurrent.futures import Future
from tempfile import TemporaryFile
from typing import IO

from steplog.engine.calling import Call
from steplog.engine.channel import Channel
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import AttemptOver, HandlerProcessDied
from steplog.engine.facts import CheckpointReached, Fact, Logged, Progressed
from steplog.engine.isolation import frames
from steplog.engine.isolation.code import Code
from steplog.eventstore.codec import escape
from steplog.eventstore.limits import TRACEBACK_CHARS_MAX

_PROGRAM = "; ".join(
    [
        "import json, sys",
        "sys.path[:] = json.loads(sys.argv[2])",
        "from steplog.engine.isolation.template import begin",
        "begin()",
    ]
)
_PARTING_S_MAX = 1.0
"""How long between the two ends of a process: of what it says, and its own. What it has started may hold files open."""
_ENDING_S_MAX = 5.0


class Isolation:
    """Where the handlers of one worker run that have a process of their own. Used on the worker's event loop."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, ...], _Template] = {}
        self._codes: dict[AnyDefinition, Code] = {}

    def fork(self, code: Code, files: list[int]) -> None:
        """Have a process forked that has imported the code. Raises OSError."""
        modules = tuple(dict.fromkeys((*code.modules, code.home)))
        if (template := self._templates.get(modules)) is not None:
            try:
                return template.fork(files)
            except OSError:  # somebody has killed it
                template.close()
        self._templates[modules] = _Template(modules)
        return self._templates[modules].fork(files)

    def code_of(self, definition: AnyDefinition) -> Code:
        """Where a process finds it. Raises DefinitionError."""
        if definition not in self._codes:
            self._codes[definition] = Code.of(definition)
        return self._codes[definition]

    def close(self) -> None:
        """End the templates, and whatever is still forked from them."""
        for template in self._templates.values():
            template.close()
        self._templates.clear()


class _Template:
    def __init__(self, modules: tuple[str, ...]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), json.dumps(sys.path), json.dumps(modules)]
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def fork(self, files: list[int]) -> None:
        socket.send_fds(self._control, [b"f"], files)

    def close(self) -> None:
        self._control.close()
        try:
            self._process.wait(_ENDING_S_MAX)
        except subprocess.TimeoutExpired:  # it imports something that does not end
            self._process.kill()
            self._process.wait()


class HandlerProcess:
    """The process of one call."""

    def __init__(self, call: Call, isolation: Isolation) -> None:
        self._call = call
        self._isolation = isolation
        self._loop = asyncio.get_running_loop()
        self.called: asyncio.Future[None] = self._loop.create_future()
        """The handler is about to be called, or never will be."""
        self._unsaid: list[frames.Said] = []
        self._fates: deque[Future[None]] = deque()
        """Of checkpoints, in the order in which it waits for them."""
        self._connection: asyncio.StreamWriter | None = None
        self._leash: asyncio.StreamWriter | None = None
        self._killed = False

    async def run(self) -> Fact | None:
        """What came of the call: the handler's outcome, or that its process died; None where it was told to stop."""
        started = self._call.channel.clock.monotonic()
        self._call.channel.on_cancel = self._tell
        try:
            with TemporaryFile() as last_words:
                said, status = await self._live(last_words)
                if said or self._killed:
                    return said[0] if said else None
                return self._died(HandlerProcessDied(status), started, last_words)
        finally:
            self._call.channel.on_cancel = None
            self._call.channel.flush()
            self._begins()

    def interrupt(self) -> None:
        """Cancel the handler if it is async; else it looks at `step.cancelled`."""
        self._say([frames.INTERRUPT])

    def kill(self) -> None:
        """End it now, with all that it has started."""
        self._killed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._leash is not None and not self._leash.is_closing():
            self._leash.write_eof()

    def _begins(self) -> None:
        if not self.called.done():
            self.called.set_result(None)

    # --- its life ----------------------------------------------------------------------------------------------------

    async def _live(self, last_words: IO[bytes]) -> tuple[list[Fact | None], int | None]:
        """What it said came of the call, if it said so, and the status that it ended with, if that is known."""
        (reader, self._connection), (status, self._leash) = await self._fork(last_words)
        conversation = self._loop.create_task(self._converse(reader))
        ending = self._loop.create_task(status.read(frames.STATUS_BYTES))
        try:
            self._begin()
            await asyncio.wait({conversation, ending}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({conversation, ending}, timeout=0.0 if _is_over(conversation) else _PARTING_S_MAX)
            self._let_go()
            ended = await ending
        finally:
            conversation.cancel()
            ending.cancel()
            self._connection.close()
            self._leash.close()
        said = conversation.result() if conversation.done() and not conversation.cancelled() else []
        return said, int.from_bytes(ended, "big", signed=True) if len(ended) == frames.STATUS_BYTES else None

    async def _fork(self, last_words: IO[bytes]) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        code = self._isolation.code_of(self._call.definition)
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        try:
            self._isolation.fork(code, [*(each.fileno() for each in theirs), last_words.fileno()])
            return [await asyncio.open_unix_connection(sock=each) for each in ours]
        except BaseException:
            for each in ours:
                each.close()
            raise
        finally:
            for each in theirs:
                each.close()

    def _begin(self) -> None:
        call, unsaid = self._call, self._unsaid
        code = self._isolation.code_of(call.definition)
        self._unsaid = []
        order = [list(code), list(call.of), list(call.given), call.channel.vault.known_keys()]
        for said in (order, *unsaid):
            self._say(said)
        if self._killed:
            self._let_go()

    async def _converse(self, reader: asyncio.StreamReader) -> list[Fact | None]:
        """Pass on what it says, until what came of the call; nothing where it says no more."""
        while (said := await frames.areceive(reader)) is not None:
            if said == [frames.READY]:
                self._begins()
            elif said == [frames.ENDED]:
                return [None]
            elif frames.is_outcome(happened := frames.fact_of(self._call.of, said)):
                return [happened]
            else:
                self._pass_on(happened)
        return []

    def _pass_on(self, happened: Fact) -> None:
        channel = self._call.channel
        match happened:
            case Logged(_, lines):
                channel.relay(lines)
            case Progressed(_, done, total, note):
                channel.progress(done, total, note)
            case CheckpointReached():
                self._fates.append(fate := _reached(channel, happened))
                fate.add_done_callback(self._say_fates)

    def _died(self, error: HandlerProcessDied, started: float, last_words: IO[bytes]) -> Fact:
        failed = self._call.failed(error, self._call.channel.clock.monotonic() - started)
        last_words.seek(0)
        left = self._call.channel.scrub(last_words.read(TRACEBACK_CHARS_MAX).decode(errors="replace"))
        words = escape(left, TRACEBACK_CHARS_MAX)
        return failed._replace(error={**failed.error, "traceback": words})

    # --- what it is told ---------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._say([frames.END if self._call.channel.is_over else frames.CANCEL])

    def _say_fates(self, known: Future[None]) -> None:
        while self._fates and self._fates[0].done():
            error = self._fates.popleft().exception()
            self._say([frames.DURABLE] if error is None else [frames.OVER, str(error)])

    def _say(self, said: frames.Said) -> None:
        if self._connection is None:
            self._unsaid.append(said)
        elif not self._connection.is_closing():
            self._connection.write(frames.framed(said))


def _is_over(conversation: asyncio.Task[list[Fact | None]]) -> bool:
    """Whether it came to an outcome, or to something that nobody understands."""
    return conversation.done() and (conversation.exception() is not None or bool(conversation.result()))


def _reached(channel: Channel, checkpoint: CheckpointReached) -> Future[None]:
    try:
        return channel.reach(checkpoint)
    except AttemptOver as error:
        over: Future[None] = Future()
        over.set_exception(error)
        return over
