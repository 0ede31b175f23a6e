"""Which numbered SQL files a store's schema is the sum of, and which of them it still lacks.

The files are `sql/<dialect>/NNNN_name.sql`, shipped inside the package. An applied file is never changed: its checksum
is recorded with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Literal, NamedTuple

from steplog.eventstore.errors import StoreError, StoreNewer

Dialect = Literal["sqlite", "postgres"]

_FILE_NAME = re.compile(r"(?P<number>\d{4})_(?P<name>\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema."""

    number: int
    name: str
    text: str

    @property
    def title(self) -> str:
        """The file's name without its ending."""
        return f"{self.number:04}_{self.name}"

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()


class Applied(NamedTuple):
    """What a store recorded about a migration when it was applied."""

    number: int
    name: str
    checksum: str


def known_migrations(dialect: Dialect) -> list[Migration]:
    """Every migration that this steplog ships for a kind of database, in order."""
    found = []
    for file in files("steplog").joinpath("sql", dialect).iterdir():
        if match := _FILE_NAME.fullmatch(file.name):
            found.append(Migration(int(match["number"]), match["name"], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def pending(known: Sequence[Migration], applied: Iterable[Applied]) -> list[Migration]:
    """The known migrations that were not applied yet, in order.

    Raises StoreNewer where one was applied that is not known here, StoreError where one was changed afterwards.
    """
    by_number = {migration.number: migration for migration in known}
    done = set()
    for record in applied:
        migration = by_number.get(record.number)
        if migration is None:
            raise StoreNewer(
                f"the store has migration {record.number:04}_{record.name}, which this steplog does not know:"
                " upgrade this one"
            )
        if record.checksum != migration.checksum:
            raise StoreError(f"migration {migration.title} differs from the one that was applied to this store")
        done.add(record.number)
    return [migration for migration in known if migration.number not in done]


def script(dialect: Dialect, migrations: Sequence[Migration]) -> str:
    """The migrations as one transaction that a person can run by hand, with the records of them."""
    opening, record = _BY_HAND[dialect]
    parts = [opening]
    for each in migrations:
        parts.append(f"-- {each.title}\n\n{each.text.strip()}\n\n{record}")
        parts.append(f"    ({each.number}, '{each.name}', '{each.checksum}'{_APPLIED_AT[dialect]});\n")
    return "\n".join([*parts, "commit;"])


_BY_HAND = {
    "postgres": (
        "begin;\ncreate schema if not exists steplog;\nset local search_path to steplog, pg_temp;\n",
        "insert into schema_migrations (number, name, checksum) values",
    ),
    "sqlite": (
        "begin immediate;\n",
        "insert into schema_migrations (number, name, checksum, applied_at) values",
    ),
}
_APPLIED_AT = {"postgres": "", "sqlite": ", strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"}
