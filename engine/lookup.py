"""Finding what a person named: a job by id, suffix, key or `@last`; its sub-step; a workflow by module and name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from steplog.engine.definition import AnyDefinition, Definition
from steplog.engine.errors import (
    AmbiguousSubStep,
    AmbiguousWorkflow,
    DeclaredTwice,
    ModuleFails,
    ModuleMissing,
    NoFanOut,
    SubStepNotFound,
    WorkflowNotDeclared,
    WorkflowNotFound,
)
from steplog.eventstore.errors import AmbiguousJob, JobNotFound
from steplog.eventstore.store import HeadQuery, Store
from steplog.projections.plan import Key, Shape, split_key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import Items, State, SubStepState

SUFFIX_CHARS_MIN = 4
EXAMPLES = ("steplog.examples.registration",)
"""Modules that are looked at for a job's workflow after those that were configured."""

_CANDIDATES_MAX = 10
_LOOKED_AT_MAX = 1000
"""Items that are compared with one that is not there."""
_ID_CHARS = 36
_SUFFIX = re.compile(rf"[0-9a-f-]{{{SUFFIX_CHARS_MIN},{_ID_CHARS}}}")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


# --- jobs ------------------------------------------------------------------------------------------------------------


def find_job(store: Store, name: str) -> str:
    """The id of the job that a full id, a unique suffix of 4 characters or more, `@last`, `@failed` or `key:…` names.

    Raises JobNotFound, and AmbiguousJob with the candidates.
    """
    found = _named(store, name)
    if not found:
        raise JobNotFound(name)
    if len(found) > 1:
        raise AmbiguousJob(name, found)
    return found[0]


def unique_suffixes(store: Store, job_ids: Iterable[str]) -> dict[str, str]:
    """The shortest suffix (4 characters or more) of each id that no other job of the store has."""
    return {job_id: _unique_suffix(store, job_id) for job_id in job_ids}


def find_sub_step(state: State, name: str) -> Key:
    """The key of the job's sub-step with that name, or with that `phase/name`.

    Raises SubStepNotFound, and AmbiguousSubStep where several phases have one of that name.
    """
    known = Shape.of(state["plan"]).sub_steps
    found = [name] if name in known else [key for key in known if split_key(key)[1] == name]
    if not found:
        names = [split_key(key)[1] for key in known]
        meant = get_close_matches(name, names, n=3)
        first = names[:_CANDIDATES_MAX]
        raise SubStepNotFound(state["job_id"], name, meant or first, 0 if meant else len(names) - len(first))
    if len(found) > 1:
        raise AmbiguousSubStep(state["job_id"], name, found)
    return found[0]


def find_place(state: State, name: str) -> tuple[Key, str | None]:
    """The key of the sub-step with that name, or with `name[item]` the key and the item of a fan-out.

    Raises SubStepNotFound, AmbiguousSubStep.
    """
    try:
        return find_sub_step(state, name), None
    except SubStepNotFound:
        group, bracket, item = name.removesuffix("]").partition("[")
        if not bracket or not name.endswith("]"):
            raise
    key = find_sub_step(state, group)
    items = sub_step_of(state, key)["items"]
    if items is None or item not in items["keys"]:
        raise SubStepNotFound(state["job_id"], name, [f"{group}[{known}]" for known in _close_items(item, items)])
    return key, item


def find_items(state: State, name: str, after: str | None = None) -> tuple[SubStepState, int]:
    """The fan-out of that name, and the place of one of its items; without one, the place before the first.

    Raises SubStepNotFound, AmbiguousSubStep, NoFanOut.
    """
    key = find_sub_step(state, name)
    sub_step = sub_step_of(state, key)
    items = sub_step["items"]
    if items is None:
        raise NoFanOut(state["job_id"], key, listed="map" in Shape.of(state["plan"]).sub_steps[key])
    if after is None:
        return sub_step, -1
    if after not in items["keys"]:
        raise SubStepNotFound(state["job_id"], f"{name}[{after}]", _close_items(after, items))
    return sub_step, items["keys"].index(after)


def _close_items(item: str, items: Items | None) -> list[str]:
    keys = items["keys"] if items else []
    return get_close_matches(item, keys[:_LOOKED_AT_MAX], n=3) or keys[:_CANDIDATES_MAX]


def _named(store: Store, name: str) -> list[str]:
    if name == "@last":
        return [head.job_id for head in store.heads(HeadQuery(limit=1))]
    if name == "@failed":
        return [head.job_id for head in store.heads(HeadQuery(status="failed", limit=1))]
    if name.startswith("key:"):
        return store.job_of_key(None, name.removeprefix("key:"))
    suffix = name.removeprefix("…").removeprefix("...").lower()
    return store.find(suffix, _CANDIDATES_MAX) if _SUFFIX.fullmatch(suffix) else []


def _unique_suffix(store: Store, job_id: str) -> str:
    chars = SUFFIX_CHARS_MIN
    while chars < len(job_id):
        found = store.find(job_id[-chars:], _CANDIDATES_MAX)
        if not set(found) - {job_id}:
            break
        chars = 1 + max(_chars_in_common(job_id, other) for other in found if other != job_id)
    return job_id[-chars:]


def _chars_in_common(one: str, other: str) -> int:
    """How many characters two different ids have in common at their ends."""
    pairs = zip(reversed(one), reversed(other), strict=True)
    return next(count for count, (a, b) in enumerate(pairs) if a != b)


# --- workflows -------------------------------------------------------------------------------------------------------


def import_workflow(target: str) -> AnyDefinition:
    """The workflow at `MODULE:WORKFLOW`, or the only one of `MODULE`; WORKFLOW is a variable or a workflow's name.

    Raises ModuleMissing, ModuleFails, WorkflowNotDeclared, AmbiguousWorkflow.
    """
    module, _, name = target.partition(":")
    declared = _declared_in(_imported(module))
    if name:
        found = [workflow for variable, workflow in declared.items() if variable == name]
        found = found or [workflow for workflow in declared.values() if workflow.name == name]
    else:
        found = list(dict.fromkeys(declared.values()))
    if not found:
        raise WorkflowNotDeclared(module, name, list(declared))
    if len(found) > 1 and not name:
        raise AmbiguousWorkflow(module, list(declared))
    return found[0]


def workflows_of(targets: Iterable[str]) -> list[AnyDefinition]:
    """Every workflow that each `MODULE` declares, or the one of `MODULE:WORKFLOW`.

    Raises as `import_workflow` does, and DeclaredTwice where two of them have one name.
    """
    found: dict[str, tuple[str, AnyDefinition]] = {}
    for target in targets:
        module, _, name = target.partition(":")
        declared = [import_workflow(target)] if name else list(_declared_in(_imported(module)).values())
        if not declared:
            raise WorkflowNotDeclared(module, "", [])
        for workflow in declared:
            known_in, known = found.setdefault(workflow.name, (module, workflow))
            if known is not workflow:
                raise DeclaredTwice(workflow.name, [known_in, module])
    return [workflow for _, workflow in found.values()]


def find_workflow(name: str, modules: Iterable[str]) -> AnyDefinition:
    """The workflow of that name in the modules, or in steplog's own examples.

    Raises ModuleMissing, ModuleFails, WorkflowNotFound, and DeclaredTwice where two modules declare one each.
    """
    for names in ([module.partition(":")[0] for module in modules], EXAMPLES):
        found = {
            id(workflow): (module, workflow)
            for module in names
            for workflow in _declared_in(_imported(module)).values()
            if workflow.name == name
        }
        if len(found) > 1:
            raise DeclaredTwice(name, [module for module, _ in found.values()])
        if found:
            return next(workflow for _, workflow in found.values())
    raise WorkflowNotFound(name)


def declared_workflows(modules: Iterable[str]) -> dict[str, AnyDefinition]:
    """Every workflow of the modules by its name, and steplog's own examples where no module has one of that name.

    Raises ModuleMissing, ModuleFails, DeclaredTwice.
    """
    found: dict[str, tuple[str, AnyDefinition]] = {}
    for module in dict.fromkeys(each.partition(":")[0] for each in modules):
        for workflow in _declared_in(_imported(module)).values():
            known = found.setdefault(workflow.name, (module, workflow))
            if known[1] is not workflow:
                raise DeclaredTwice(workflow.name, [known[0], module])
    for module in EXAMPLES:
        for workflow in _declared_in(_imported(module)).values():
            found.setdefault(workflow.name, (module, workflow))
    return {name: workflow for name, (_, workflow) in found.items()}


def _declared_in(module: ModuleType) -> dict[str, AnyDefinition]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Definition)}


def _imported(name: str) -> ModuleType:
    """Import a module, from the current folder too: behind everything installed, never before it."""
    if not _MODULE.fullmatch(name) or name.endswith(".py"):
        raise ModuleMissing(name)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ModuleMissing(name) from error
        raise ModuleFails(name, error) from error
    except (Exception, SystemExit) as error:
        raise ModuleFails(name, error) from error
