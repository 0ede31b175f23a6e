"""Taking known secrets out of texts that are recorded in plain: messages, tracebacks, lines, notes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from steplog.engine.masking import MASK, TEXT_CHARS_MIN

RUN_CHARS = 12
"""So long a part of a secret is taken out too: whoever shortens a message leaves the ends of what is in it."""


class Scrubber:
    """Masks these secrets: as they are, as code, JSON and URLs write them, and each long part of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms_of(secret)}
        self._short = sorted((form for form in forms if len(form) < RUN_CHARS), key=len, reverse=True)
        self._runs = {form[at : at + RUN_CHARS] for form in forms for at in range(len(form) - RUN_CHARS + 1)}

    def scrub(self, text: str) -> str:
        """The text without them; it is looked at once, however many there are."""
        for form in self._short:
            text = text.replace(form, MASK)
        return self._without_runs(text) if self._runs else text

    def _without_runs(self, text: str) -> str:
        kept: list[str] = []
        at = since = 0
        while at <= len(text) - RUN_CHARS:
            end = at
            while text[end : end + RUN_CHARS] in self._runs:
                end += 1
            if end > at:
                kept += (text[since:at], MASK)
                at = since = end - 1 + RUN_CHARS
            else:
                at += 1
        return "".join((*kept, text[since:]))


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets."""
    return Scrubber(secrets).scrub(text)


def _forms_of(secret: str) -> Iterator[str]:
    """How a secret may stand in a text; none of one that is too short to be told from other words."""
    for form in {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1],
                 quote(secret, safe=""), quote(secret)}:  # fmt: skip
        if len(form) >= TEXT_CHARS_MIN:
            yield form
