"""The form of a value that the log holds sealed: `{"$sealed": "<whose key>:<ciphertext>"}`, told by its shape alone.

Nothing here knows of ciphers. Equal values sealed with one key have equal forms, so that whatever compares values
compares sealed ones too, without opening them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

SEALED: Final = "$sealed"
HIDDEN: Final = "********"
"""What people see of a secret."""
ERASED: Final = "(erased)"
"""What they see of one that nobody can read any more."""
_NAME = b'"$sealed":'
"""How a key of that name stands in canonical JSON; inside a text its quotation marks are escaped."""


class Sealed(NamedTuple):
    """A sealed value."""

    job_id: str
    """The job whose data key opens it."""
    ciphertext: str

    @property
    def document(self) -> dict[str, str]:
        """As it stands in the log."""
        return {SEALED: f"{self.job_id}:{self.ciphertext}"}

    @staticmethod
    def of(text: str) -> Sealed:
        job_id, _, ciphertext = text.partition(":")
        return Sealed(job_id, ciphertext)


def may_hold_sealed(encoded: bytes) -> bool:
    """Whether canonical JSON has a key of that name anywhere."""
    return _NAME in encoded


def is_sealed(value: Any) -> bool:
    return type(value) is dict and len(value) == 1 and type(value.get(SEALED)) is str


def hidden(document: Any) -> Any:
    """A document for people's eyes, without what is sealed; of a job whose secrets were erased, with that said."""
    erased = type(document) is dict and document.get("erased") is True
    return with_sealed(document, lambda sealed: ERASED if erased else HIDDEN)


def with_sealed(value: Any, put: Callable[[Sealed], Any]) -> Any:
    """The value with each sealed one replaced; what holds none is the very same object."""
    if type(value) is dict:
        if is_sealed(value):
            return put(Sealed.of(value[SEALED]))
        parts = {name: with_sealed(part, put) for name, part in value.items()}
        return parts if any(parts[name] is not part for name, part in value.items()) else value
    if type(value) is list:
        items = [with_sealed(part, put) for part in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value
