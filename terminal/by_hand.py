"""What a person's action came to, as a line and as JSON: what was appended, and what happens next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steplog.eventstore.events import EventData
from steplog.projections.state import ENDED, STOPPED
from steplog.terminal.text import one_line, pairs
from steplog.terminal.tree import View

NAMED_MAX = 4
"""How many events a line names one by one."""

PasteableCommand = Callable[[str], str]


def action_line(view: View, events: Sequence[EventData], repeated: bool, command: PasteableCommand) -> str:
    """`JobResumed (41): job …b617 is queued: …`"""
    state = view.state
    status = view.look.word("stalled" if view.stalled else state["status"])
    ending = _next(view, command)
    line = f"{_appended(view, events, repeated)}: job {view.look.job(view.name)} is {status}"
    return view.look.fit(f"{line}: {ending}" if ending else line)


def action_document(
    view: View, events: Sequence[EventData], repeated: bool, command: PasteableCommand
) -> dict[str, Any]:
    """The same as JSON."""
    state, first = view.state, view.state["version"] - len(events) + 1
    return {
        "job_id": state["job_id"],
        "status": state["status"],
        "version": state["version"],
        "appended": [{"version": first + place, "type": event.type()} for place, event in enumerate(events)],
        "repeated": repeated,
        "next": command(f"resume {view.name}") if _is_to_be_resumed(view) else None,
    }


def reset_document(job_id: str, events: Sequence[EventData]) -> dict[str, Any]:
    """What a reset would do: the sub-steps, the context, and whether the job is opened again."""
    resets = [event.as_data() for event in events if event.type() == "SubStepReset"]
    return {
        "job_id": job_id,
        "reset": [key for each in resets for key in each["sub_steps"]],
        "set": {field: value for each in resets for field, value in each["set"].items()},
        "unset": [field for each in resets for field in each["unset"]],
        "reopens": any(event.type() == "JobReopened" for event in events),
    }


def reset_lines(document: dict[str, Any]) -> list[str]:
    """The same for people."""
    count = len(document["reset"])
    lines = [f"{count} sub-step{'' if count == 1 else 's'} back to pending: {one_line(', '.join(document['reset']))}"]
    if document["set"]:
        lines.append(f"context goes back to {pairs(document['set'].items())}")
    if document["unset"]:
        lines.append(f"context loses {one_line(', '.join(document['unset']))}")
    return [*lines, "the job is opened again"] if document["reopens"] else lines


def _appended(view: View, events: Sequence[EventData], repeated: bool) -> str:
    if repeated:
        return "done before"
    first = view.state["version"] - len(events) + 1
    named = [f"{event.type()} ({first + place})" for place, event in enumerate(events[:NAMED_MAX])]
    more = len(events) - len(named)
    return ", ".join([*named, f"{more} more"] if more else named)


def _next(view: View, command: PasteableCommand) -> str:
    state, resume = view.state, f"`{command(f'resume {view.name}')}`"
    if state["status"] in ENDED:
        return ""
    if state["erased"]:
        return "nothing of it can run any more"
    if view.stalled:
        return f"its process is gone, {resume} runs it on"
    if state["requested"] == "pause":
        return "its worker pauses it once nothing is in progress"
    if state["requested"] == "cancel":
        return "its worker cancels it"
    if not _is_to_be_resumed(view):
        return "its worker goes on with it"
    return f"{resume}{'' if state['status'] in STOPPED else ', or a worker,'} runs it on"


def _is_to_be_resumed(view: View) -> bool:
    return view.stalled or view.state["status"] not in ("running", *ENDED)
