"""What a transactional handler gets: the store's own database, inside a transaction that ends with its attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from steplog.eventstore.store import StoreTransaction
from steplog.eventstore.transaction import Rows


class Transaction:
    """Statements that are committed together with the sub-step's completion, exactly once.

    A plain `def` handler with a parameter of this type gets one. Returning commits, raising rolls back, and
    `step.checkpoint` commits what was done so far; there is nothing else to commit with.

        @orders.sub_step
        def book(step: Step[Order], tx: Transaction) -> int:
            tx.execute("update stock set left_over = left_over - %s where dish = %s", [1, step.input.dish])
            return tx.execute("select left_over from stock where dish = %s", [step.input.dish]).fetchall()[0][0]

    Parameters are `%s` on every store, a percent sign outside quotes is `%%`; types and dialect are the database's.
    """

    def __init__(self, current: Callable[[], StoreTransaction]) -> None:
        self._current = current

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Run one statement and give its rows.

        Raises StatementFailed where the database refuses it: the attempt then fails, even if that is caught, unless the
        handler goes back to a savepoint that it had set before. Raises TransactionEnded for a commit or rollback,
        TransactionClosed once the attempt is over, and StoreUnavailable.
        """
        return self._current().execute(statement, parameters)

    def executemany(self, statement: str, each: Iterable[Sequence[Any]], /) -> Rows:
        """Run one statement with each of the parameters; only their count comes back."""
        return self._current().execute_many(statement, each)
