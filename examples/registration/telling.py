"""What the demo prints: the phases as they end, the kill, the resume, and the effects in a table."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TextIO

from steplog.examples.registration.effects import Account, KeyEffects, MenuEffects
from steplog.projections.state import PhaseState, State, SubStepState

BAR_WIDTH = 10
LINE_WIDTH = 95
_ASCII = str.maketrans({"✓": "+", "▶": ">", "✗": "x", "↻": "*", "·": "|", "█": "#", "░": "."})
_ENDED = {"completed": "✓", "failed": "✗"}


class Teller:
    """Writes for people, in plain ASCII where the stream takes no more."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._ascii = "utf" not in (getattr(out, "encoding", None) or "utf-8").lower()
        self._told: set[str] = set()

    def opening(self, url: str) -> None:
        """What is about to happen, and where."""
        self._say("steplog demo: a 4-phase restaurant registration, killed half-way on purpose")
        self._say(f"store   {short_url(url)}   (a file: no database server is running)")

    def phases(self, state: State) -> None:
        """Each phase that has ended and was not told of yet."""
        for name, phase in state["phases"].items():
            if phase["status"] in _ENDED and name not in self._told:
                self._told.add(name)
                self._say(f" {_ENDED[phase['status']]} {name}   {sub_steps(phase)}")

    def killed(self, state: State, pid: int, fold_s: float) -> None:
        """Where the kill found the job, and what a new process knows of it."""
        for name, phase in state["phases"].items():
            if phase["status"] == "in_progress":
                self._say(f" ▶ {name}   {sub_steps(phase)}")
        self._say(f" ✗ kill -9 (pid {pid}) at event {state['version']}: the process is gone")
        steps = [step for phase in state["phases"].values() for step in phase["sub_steps"].values()]
        done = sum(step["status"] == "completed" for step in steps)
        menu_import = state["phases"]["phase2"]["sub_steps"]["menuImport"]
        self._say(
            f" ↻ new process: the log's {state['version']} events fold in {fold_s * 1000:.0f} ms; "
            f"{done} sub-steps done, resuming menuImport at {position(menu_import)}"
        )

    def ended(self, state: State, seconds: float) -> None:
        """How the job came out."""
        self._say(f"   {state['status']} after {seconds:.1f} s · {state['version']} events")
        for warning in state["warnings"]:
            self._say(f"   tolerated: {warning}")

    def effects(self, account: Account) -> None:
        """Every effect outside of the log, counted."""
        self._say("")
        self._say("Effects, counted outside: the service notes each request before it looks whether it knows the key.")
        self._say(f"   {'sub-step':<32}{'requests':>9}{'allowed':>9}{'done':>6}{'after completion':>18}")
        for each in account.keys:
            if each.requests:
                self._say(f" {'✗' if each.problems() else '✓'} {request_row(each)}")
        if account.menu:
            self._say(f" {'✗' if account.menu.problems() else '✓'} {menu_row(account.menu)}")
        if not account.problems:
            self._say(" ✓ no completed sub-step ran again, and no request came after its completion was acknowledged")
        for problem in account.problems:
            self._say(f" ✗ {problem}")

    def commands(self, url: str, killed_at: int) -> None:
        """What to look at next: each line works as pasted."""
        steplog = f"{steplog_command()} --db {shlex.quote(short_url(url))}"
        asked = (f"show @last --at {killed_at}", "show @last", "events @last", "replay @last")
        self._say("")
        for label, command in zip(("Look:", "", "", ""), asked, strict=True):
            self._say(f"{label:<6}{steplog} {command}")

    def _say(self, line: str) -> None:
        text = line.translate(_ASCII).encode("ascii", "replace").decode() if self._ascii else line
        self._out.write(f"{text}\n")
        self._out.flush()


def sub_steps(phase: PhaseState) -> str:
    """A phase's sub-steps and how they stand, in lines of a fair width."""
    lines = [""]
    for name, step in phase["sub_steps"].items():
        part = f"{name} {outcome(step)}"
        if lines[-1] and len(lines[-1]) + len(part) > LINE_WIDTH:
            lines.append("")
        lines[-1] += f" · {part}" if lines[-1] else part
    return f" ·\n{' ' * 12}".join(lines)


def outcome(step: SubStepState) -> str:
    """How a sub-step stands, in a word or two."""
    if step["status"] == "completed":
        tries = f" (attempt {step['attempts']})" if step["attempts"] > 1 else ""
        return f"✓ {step['seconds'] or 0:.1f}s{tries}"
    if step["status"] == "failed":
        return f"✗ failed {step['failures']} times"
    if step["cursor"]:
        done, total = step["cursor"]["rows"], step["cursor"]["of"]
        filled = BAR_WIDTH * done // total
        return f"{'█' * filled}{'░' * (BAR_WIDTH - filled)} {done}/{total}"
    return step["status"].replace("_", " ")


def position(step: SubStepState) -> str:
    """Where the menu import goes on."""
    return f"{step['cursor']['rows']}/{step['cursor']['of']}" if step["cursor"] else "its beginning"


def request_row(each: KeyEffects) -> str:
    """A line of the table of effects."""
    return f"{each.sub_step:<32}{len(each.requests):>9}{each.allowed:>9}{each.performed:>6}{each.late:>18}"


def menu_row(menu: MenuEffects) -> str:
    """What became of the menu."""
    return (
        f"phase2/menuImport: {menu.rows} rows, {menu.dishes} distinct dishes, {menu.missing} missing; "
        f"{menu.repeated_rows} rows imported again after {menu.crashes} crash{'' if menu.crashes == 1 else 'es'}"
    )


def short_url(url: str) -> str:
    """The store's URL, relative where it lies below the current folder."""
    path = Path(url.removeprefix("sqlite:///"))
    return f"sqlite:///{path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else url


def steplog_command() -> str:
    """The steplog that belongs to this Python, as one would type it here."""
    script = Path(sys.executable).with_name("steplog")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m steplog"
    return shlex.quote(min(str(script), os.path.relpath(script), key=len))
