"""Taking known secrets out of texts that are recorded in plain: messages, tracebacks, lines, notes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from steplog.engine.masking import MASK, TEXT_CHARS_MIN

RUN_CHARS = 12
"""So long a part of a secret is taken out too: whoever shortens a message leaves the ends of what is in it."""


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """The text with the secrets masked: as they are, as code, JSON and URLs write them, and long parts of them."""
    for form in sorted({form for secret in secrets for form in forms_of(secret)}, key=len, reverse=True):
        text = _without_runs(text.replace(form, MASK), form)
    return text


def forms_of(secret: str) -> Iterator[str]:
    """How a secret may stand in a text; none of one that is too short to be told from other words."""
    for form in {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1],
                 quote(secret, safe=""), quote(secret)}:  # fmt: skip
        if len(form) >= TEXT_CHARS_MIN:
            yield form


def _without_runs(text: str, secret: str) -> str:
    runs = {secret[start : start + RUN_CHARS] for start in range(len(secret) - RUN_CHARS + 1)}
    if not runs:
        return text
    kept: list[str] = []
    at = since = 0
    while at <= len(text) - RUN_CHARS:
        end = at
        while text[end : end + RUN_CHARS] in runs:
            end += 1
        if end > at:
            kept += (text[since:at], MASK)
            at = since = end - 1 + RUN_CHARS
        else:
            at += 1
    return "".join((*kept, text[since:]))
