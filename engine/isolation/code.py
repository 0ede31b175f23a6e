"""Where another process finds a workflow: by the module and the variable that hold it here, never by its code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from steplog.engine.definition import AnyDefinition, AnySubStep, Definition
from steplog.engine.errors import DefinitionError

MAIN = "__main__"

_importing = False


class Code(NamedTuple):
    """What a process imports to have a workflow and its handlers."""

    modules: list[str]
    """Those that the handlers stand in: importing them declares them."""
    home: str
    variable: str
    """The workflow: a variable of that module."""

    @classmethod
    def of(cls, definition: AnyDefinition) -> Code:
        """Where the definition is. Raises DefinitionError where no module holds it."""
        handlers = [each.handler.__module__ for each in _isolated(definition)]
        for name in (*handlers, *sys.modules):
            for variable, value in list(vars(sys.modules[name]).items()):
                if value is definition:
                    return cls(sorted({_importable(each) for each in handlers}), _importable(name), variable)
        raise DefinitionError(
            f"workflow {definition.name}: isolate='process' needs it in a variable of a module, where another process "
            "can find it"
        )

    def found(self) -> AnyDefinition:
        """The definition, imported. Raises what the modules raise, DefinitionError where it is not there."""
        for module in self.modules:
            import_alone(module)
        definition = getattr(import_alone(self.home), self.variable, None)
        if not isinstance(definition, Definition):
            raise DefinitionError(f"module {self.home} has no workflow {self.variable!r} when it is imported")
        return definition


def import_alone(module: str) -> Any:
    """The module, imported to find a handler in it, not to run a workflow."""
    global _importing
    _importing = True
    try:
        return import_module(module)
    finally:
        _importing = False


def refuse_while_importing() -> None:
    """Raise DefinitionError where a module runs its workflow as it is imported to find a handler."""
    if _importing:
        raise DefinitionError(
            "a module that declares a handler with isolate='process' runs a workflow whenever it is imported: put that "
            "under `if __name__ == '__main__':`"
        )


def _isolated(definition: AnyDefinition) -> Iterator[AnySubStep]:
    for sub_step in definition.sub_steps.values():
        yield from (each for each in (sub_step, sub_step.undo) if each is not None and each.options.isolate)


def _importable(module: str) -> str:
    """The name by which another process imports it: the main module goes by the name of its file."""
    if module != MAIN:
        return module
    main = sys.modules[MAIN]
    if main.__spec__ is not None:
        return main.__spec__.name
    if (file := getattr(main, "__file__", None)) is None:
        raise DefinitionError("isolate='process' needs a workflow in a file: this one was typed in")
    return Path(file).stem
