"""`%s` placeholders: one way to write a statement's parameters, whichever store runs it.

Outside quotes and comments `%s` is a parameter and `%%` a percent sign. Inside them nothing is a parameter, and a
percent sign may be written either way, so that statements made for psycopg mean the same.
"""

from __future__ import annotations

import re
from functools import lru_cache

_MARKS = re.compile(
    r"""
    (?P<quoted>
        (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'
      | '(?:[^']|'')*'
      | "(?:[^"]|"")*"
      | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
      | --[^\n]*
      | /\*.*?\*/
    )
  | (?P<parameter>%s)
  | (?P<percent>%%)
  | (?P<stray>%)
    """,
    re.VERBOSE | re.DOTALL,
)


class StrayPercent(ValueError):
    """A percent sign that is neither `%s` nor `%%`."""


@lru_cache(maxsize=512)
def texts_between(statement: str) -> tuple[str, ...]:
    """The statement's text before, between and behind its parameters, as the database is to read it.

    Raises StrayPercent.
    """
    texts, end = [""], 0
    for mark in _MARKS.finditer(statement):
        texts[-1] += statement[end : mark.start()]
        end = mark.end()
        if mark["quoted"]:
            texts[-1] += mark["quoted"].replace("%%", "%")
        elif mark["parameter"]:
            texts.append("")
        elif mark["percent"]:
            texts[-1] += "%"
        else:
            raise StrayPercent(f"a lone % at character {end}: write %s for a parameter, %% for a percent sign")
    texts[-1] += statement[end:]
    return tuple(texts)
