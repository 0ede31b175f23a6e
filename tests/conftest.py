"""What every test may use."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "append_witness",
    "log_builder",
    "compliance.appending",
    "compliance.appending_locked",
    "compliance.claiming",
    "compliance.creating",
    "compliance.data_keys",
    "compliance.feeding",
    "compliance.inspecting",
    "compliance.listing",
    "compliance.log_case",
    "compliance.projecting",
    "compliance.reading",
    "compliance.states",
    "compliance.transacting",
    "compliance.workers",
    "compliance.working",
)

pytest_plugins = ["hypothesis_profiles", "witness_figures", "postgres_fixtures", "store_fixtures"]
