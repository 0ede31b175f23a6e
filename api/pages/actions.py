"""What a person can do with a job on its page: words for it, what has to be given, and how it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from steplog.api.problems import invalid
from steplog.engine import fork as forking
from steplog.engine import operators
from steplog.engine.allowed import allowed_actions, allowed_sub_step_actions
from steplog.engine.definition import AnyDefinition
from steplog.engine.operators import Appended
from steplog.eventstore.store import Store
from steplog.projections.plan import Key
from steplog.projections.state import State


class Field(NamedTuple):
    """Something that an action has to be given."""

    name: str
    label: str
    kind: str
    """text, json, check or number."""
    hint: str = ""


class Offer(NamedTuple):
    """An action that is allowed now."""

    name: str
    label: str
    told: str
    """What it does."""
    tone: str
    sub_step: Key | None = None


class Words(NamedTuple):
    """What is said of an action."""

    label: str
    told: str
    tone: str = "plain"
    fields: tuple[Field, ...] = ()


_SAME_KEY = Field("same_key", "Keep the idempotency key", "check", "also where input or context were edited since")
_SET = Field("set", "Fields to set", "json", 'as JSON: {"name": value}')

OF_JOB: dict[str, Words] = {
    "resume": Words(
        "Resume", "Queue the job again: what stopped it gets another chance, nothing done is repeated.", "main", (
        Field("accept", "Accept the context as it is", "check", "only where sub-steps disagreed about it"),
    )),
    "retry": Words("Retry now", "Run what failed or backs off again, now.", "plain", (_SAME_KEY,)),
    "pause": Words("Pause", "Start nothing more; the job stops once what is in progress has settled."),
    "cancel": Words("Cancel", "End the job before its end. What is done stays done.", "danger"),
    "signal": Words("Send signal", "Send what a sub-step waits for; it is kept until something takes it.", "plain", (
        Field("name", "Name", "text"), Field("payload", "Payload", "json", "JSON; empty for none"),
    )),
    "set": Words("Edit context", "Change fields that later sub-steps read.", "plain", (_SET,)),
    "edit-input": Words("Edit input", "Give the job another input.", "plain", (Field("input", "Input", "json"),)),
    "fork": Words("Fork", "Begin a new job that goes on from what this one was at a version.", "plain", (
        Field("at", "From version", "number", "now unless given"), _SET,
    )),
}  # fmt: skip
OF_SUB_STEP: dict[str, Words] = {
    "retry": Words("Retry", "Run the sub-step again, with a new budget of attempts, and nothing else.", "main", (
        _SAME_KEY,
    )),
    "skip": Words("Skip", "Do without it; what needs its result is skipped too."),
    "complete": Words("Complete by hand", "Take it for done, with a result that you give.", "plain", (
        Field("result", "Result", "json", "JSON; empty for none"),
    )),
    "fail": Words("Fail by hand", "Take it for failed."),
    "reset": Words("Reset", "Back to pending, with all that went on from it and the context they wrote.", "danger", (
        _SAME_KEY,
    )),
}  # fmt: skip


def offers(state: State, key: Key | None = None) -> list[Offer]:
    """What may be done now with the job, or with one of its sub-steps."""
    words = OF_JOB if key is None else OF_SUB_STEP
    allowed = allowed_actions(state) if key is None else allowed_sub_step_actions(state, key)
    return [Offer(name, each.label, each.told, each.tone, key) for name, each in words.items() if name in allowed]


def words_of(action: str, sub_step: Key | None) -> Words | None:
    """What is said of an action, if there is one of that name."""
    return (OF_JOB if sub_step is None else OF_SUB_STEP).get(action)


def values_of(fields: tuple[Field, ...], form: Mapping[str, str]) -> dict[str, Any]:
    """What a form gave, by field; what was left empty is left out. Raises Problem."""
    found: dict[str, Any] = {}
    for field in fields:
        text = form.get(field.name, "").strip()
        if field.kind == "check":
            found[field.name] = bool(text)
        elif text:
            found[field.name] = _value(field, text)
    return found


def _value(field: Field, text: str) -> Any:
    if field.kind == "text":
        return text
    try:
        return int(text) if field.kind == "number" else orjson.loads(text)
    except ValueError:
        wanted = "a number" if field.kind == "number" else "JSON: text stands in quotes"
        raise invalid(f"{field.label} is not {wanted}", field=field.name) from None


def carry_out(
    store: Store,
    job_id: str,
    action: str,
    sub_step: Key | None,
    values: Mapping[str, Any],
    definition: AnyDefinition | None,
    how: Mapping[str, Any],
) -> Appended:
    """Do it, or with `dry_run` say what would be done. Raises what `operators` raises."""
    if sub_step is not None:
        return _of_sub_step(store, job_id, action, sub_step, values, definition, how)
    given = dict(values)
    match action:
        case "resume":
            return operators.resume(store, job_id, accept=given["accept"], **how)
        case "retry":
            return operators.retry(store, job_id, same_key=given["same_key"], **how)
        case "signal":
            return operators.signal(store, job_id, given.get("name", ""), given.get("payload"), **how)
        case "set":
            return operators.set_context(store, job_id, _fields(given), definition=definition, **how)
        case "edit-input":
            return operators.edit_input(store, job_id, given.get("input"), definition=definition, **how)
        case "fork":
            return forking.fork(store, job_id, at=given.get("at"), values=_fields(given), definition=definition, **how)
    plain: dict[str, Callable[..., Appended]] = {"pause": operators.pause, "cancel": operators.cancel}
    return plain[action](store, job_id, **how)


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    fields = given.get("set", {})
    if not isinstance(fields, dict):
        raise invalid('Fields to set is not an object: {"name": value}', field="set")
    return fields


def _of_sub_step(
    store: Store,
    job_id: str,
    action: str,
    sub_step: Key,
    values: Mapping[str, Any],
    definition: AnyDefinition | None,
    how: Mapping[str, Any],
) -> Appended:
    match action:
        case "complete":
            return operators.complete(store, job_id, sub_step, values.get("result"), definition=definition, **how)
        case "skip":
            return operators.skip(store, job_id, sub_step, **how)
        case "fail":
            return operators.fail(store, job_id, sub_step, **how)
        case "retry":
            return operators.retry(store, job_id, sub_step, same_key=values["same_key"], **how)
    return operators.reset(store, job_id, sub_step, same_key=values["same_key"], **how)
