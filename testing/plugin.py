"""The pytest plugin: the fixture `steplog`. Nothing else of steplog is imported before a test asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from steplog.testing.kit import Kit


@pytest.fixture
def steplog() -> Kit:
    """A store in memory, a clock that waits for nobody, and what runs workflows with them."""
    from steplog.testing.kit import Kit

    return Kit()
