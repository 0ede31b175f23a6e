"""From a URL to the store it names."""

from __future__ import annotations

from pathlib import Path

from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.store import Store

_SQLITE = "sqlite:///"


def open_store(url: str, *, create: bool = True) -> Store:
    """The store at `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://…`.

    A SQLite file is created and migrated if need be, unless `create` is false. Drivers are imported here, so that
    what does not need a database starts without one. Raises StoreUnavailable for a URL that names no store.
    """
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        from steplog.eventstore.sqlite import SQLiteStore

        path = url.removeprefix(_SQLITE)
        if path == ":memory:":
            raise StoreUnavailable("a store in memory would be gone with its process: name a file")
        return SQLiteStore(Path(path), create=create)
    if url.startswith(("postgresql://", "postgres://")):
        from steplog.eventstore.postgres import PostgresStore

        return PostgresStore(url)
    raise StoreUnavailable(f"{url!r} names no store: write sqlite:///FILE or postgresql://USER@HOST/DATABASE")
