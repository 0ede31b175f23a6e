"""What users test their workflows with: docs/testing.md. Each name is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steplog.testing.clock import VirtualClock
    from steplog.testing.kit import Kit
    from steplog.testing.lone_step import LoneStep, step
    from steplog.testing.loop import Deadlock
    from steplog.testing.memory import MemoryStore

__all__ = ["Deadlock", "Kit", "LoneStep", "MemoryStore", "VirtualClock", "step"]

_HOMES = {
    "Deadlock": "steplog.testing.loop",
    "Kit": "steplog.testing.kit",
    "LoneStep": "steplog.testing.lone_step",
    "MemoryStore": "steplog.testing.memory",
    "VirtualClock": "steplog.testing.clock",
    "step": "steplog.testing.lone_step",
}

if not TYPE_CHECKING:  # the checkers read the imports above, and would believe any name of a module that has this

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
