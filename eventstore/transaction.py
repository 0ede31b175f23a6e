"""What a handler's statements are like on every store: how their parameters stand in them, and what they give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from steplog.eventstore.errors import StatementFailed
from steplog.eventstore.placeholders import StrayPercent, texts_between


class Rows:
    """What a statement gave: its rows, fetched already, handed out one after the other."""

    def __init__(self, rows: Iterable[tuple[Any, ...]], rowcount: int) -> None:
        self._left = iter(rows)
        self.rowcount = rowcount
        """How many rows the statement changed or gave, -1 where the database does not say."""

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, None behind the last."""
        return next(self._left, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Every row that is left."""
        return list(self._left)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._left


def texts_for(statement: str, each: Iterable[Sequence[Any]]) -> tuple[str, ...]:
    """The statement's text around its parameters. Raises StatementFailed where they are not as many as it has."""
    try:
        texts = texts_between(statement)
    except StrayPercent as error:
        raise StatementFailed(str(error)) from None
    for parameters in each:
        if isinstance(parameters, str | bytes) or not isinstance(parameters, Sequence):
            raise StatementFailed(f"parameters come as a list, not as {type(parameters).__name__}")
        if len(parameters) != len(texts) - 1:
            raise StatementFailed(f"the statement has {len(texts) - 1} %s and was given {len(parameters)} parameters")
    return texts
