"""How hard the property tests try: `dev` by default, `ci` where CI is set, `nightly` in `make test-all`.

HYPOTHESIS_PROFILE names another one. No profile has a deadline: a busy machine is no bug.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "dev", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=200)
settings.register_profile(
    "first failure",
    settings.get_profile("dev"),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
settings.register_profile("nightly", settings.get_profile("dev"), max_examples=4_000)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
