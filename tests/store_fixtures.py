"""A store of each kind for tests of what stands on one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """A store in a file of its own."""
    store = SQLiteStore(tmp_path / "steplog.db")
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    """A real store, of both kinds in turn."""
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found
