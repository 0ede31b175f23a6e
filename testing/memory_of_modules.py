"""What a process has in the modules of its handlers and a new one would not: plain data, put back as it was."""

from __future__ import annotations

import inspect
import sys
from copy import deepcopy
from types import ModuleType
from typing import Any

from steplog.engine.definition import AnyDefinition

_SCALARS = (type(None), bool, int, float, str, bytes)
_MUTABLE = (list, dict, set)


class MemoryOfModules:
    """The module variables that hold plain data now: scalars, and lists, dicts, sets and tuples of nothing else.

    `world` stands for what outlives processes: no variable that holds it is touched.
    """

    def __init__(self, definition: AnyDefinition, world: object) -> None:
        self._kept: list[tuple[ModuleType, str, Any, Any]] = []
        for module in _modules_of(definition):
            for name, value in vars(module).items():
                if not name.startswith("__") and _is_plain(value) and not _holds(value, world):
                    self._kept.append((module, name, value, deepcopy(value)))

    def forget(self) -> None:
        """Put them back, as a new process has them."""
        for module, name, value, was in self._kept:
            if isinstance(value, _MUTABLE) and value != was:
                _refill(value, deepcopy(was))
            setattr(module, name, value)


def _modules_of(definition: AnyDefinition) -> list[ModuleType]:
    names = {inspect.unwrap(sub_step.handler).__module__ for sub_step in definition.sub_steps.values()}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(_is_plain(part) for pair in value.items() for part in pair)
    if type(value) in (list, set, frozenset, tuple):
        return all(_is_plain(part) for part in value)  # type: ignore[attr-defined]  # one of the four
    return type(value) in _SCALARS


def _holds(value: Any, world: object) -> bool:
    if value is world:
        return world is not None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return any(_holds(part, world) for part in parts)


def _refill(value: Any, content: Any) -> None:
    value.clear()
    if isinstance(value, list):
        value.extend(content)
    else:
        value.update(content)
