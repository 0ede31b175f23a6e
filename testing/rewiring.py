"""A workflow as a test runs it: other resources in place of what `use(…)` opens, and every handler watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.injection import Resource
from steplog.projections.plan import Place, place_of, split_key

Provider = Callable[[], Any]
Watch = Callable[[Place, AnySubStep], Callable[..., Any]]
"""From a sub-step, or a compensation, to what is called in place of its handler."""


def rewired(definition: AnyDefinition, replacements: Mapping[Provider, Any], watch: Watch) -> AnyDefinition:
    """A copy of the definition; the given one stays as it is."""
    rewired = copy(definition)
    rewired.sub_steps = {key: _sub_step(key, step, replacements, watch) for key, step in definition.sub_steps.items()}
    return rewired


def _sub_step(key: Place, given: AnySubStep, replacements: Mapping[Provider, Any], watch: Watch) -> AnySubStep:
    resources = {
        name: _opening(replacements[resource.provider]) if resource.provider in replacements else resource
        for name, resource in given.bindings.resources.items()
    }
    sub_step = copy(given)
    sub_step.bindings = replace(given.bindings, resources=resources)
    sub_step.handler = watch(key, given)
    sub_step.options = copy(given.options)
    sub_step.options.isolate = None  # a process of its own would see neither the test's resources nor its clock
    if given.undo is not None:
        place = place_of(*split_key(key), undoing=True)
        sub_step.undo = _sub_step(place, given.undo, replacements, watch)
    return sub_step


def _opening(replacement: Any) -> Resource:
    def opened() -> Iterator[Any]:  # a generator, so that the replacement is neither entered nor closed
        yield replacement

    return Resource(opened)
