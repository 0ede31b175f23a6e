"""The registration example is crash-safe: its service replaced, killed at every append, resumed, compared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from registration_service import menu_text

from steplog.examples.registration import registration, workflow
from steplog.examples.registration.api import RequestFailed, registration_api
from steplog.examples.registration.model import Registration
from steplog.examples.registration.places import restaurant_database
from steplog.examples.registration.restaurant_db import open_restaurant
from steplog.testing import Kit

DISHES = 45
"""Three batches of the import, and so three checkpoints."""


class Service:
    """The registration service: fails when it is asked to, and does what it is asked once for each key."""

    def __init__(self) -> None:
        self.done: list[tuple[str, dict[str, Any]]] = []
        self._asked: Counter[str] = Counter()
        self._answers: dict[str, str] = {}

    def post(self, url: str, name: str, body: dict[str, Any], *, key: str, job_id: str, simulate: str = "") -> str:
        self._asked[key] += 1
        if simulate and self._asked[key] == 1:
            raise RequestFailed(name, simulate)
        if key not in self._answers:
            self.done.append((name, body))
            self._answers[key] = f"reference of {key}"
        return self._answers[key]


@pytest.fixture
def given(tmp_path: Path) -> Registration:
    menu = tmp_path / "menu.csv"
    rows = [("Mains", f"d-{number}", f"Dish {number} (Tofu)", "8.50", "vegan") for number in range(DISHES)]
    menu.write_text(menu_text(*rows), encoding="utf-8")
    simulate = {"servicesConfig": "503 x1"}
    onboarding = {"createOnboardingUser": True}
    return Registration.model_validate(
        {
            "menu": str(menu),
            "folder": tmp_path,
            "service_url": "http://replaced",
            "pace": 0,
            "simulate": simulate,
            "onboarding": onboarding,
        }
    )


def test_the_registration_is_crash_safe(steplog: Kit, given: Registration) -> None:
    service = Service()
    steplog.use(registration_api, service)

    job = steplog.assert_crash_safe_blocking(registration, given, effects=service.done)

    assert job.status == "completed"
    assert job.result(workflow.menu_import) == DISHES
    with open_restaurant(restaurant_database(given.folder)) as restaurant:
        assert restaurant.execute("select count(*) from dishes").fetchone() == (DISHES,)


def test_a_service_that_ignored_keys_would_be_found(steplog: Kit, given: Registration) -> None:
    class Forgetful(Service):
        def post(self, *asked: Any, key: str, **how: Any) -> str:
            self._answers.clear()
            return super().post(*asked, key=key, **how)

    service = Forgetful()
    steplog.use(registration_api, service)
    with pytest.raises(AssertionError, match=r"effect \('\w+', .*[)…] happened 2 times \(undisturbed: 1\)"):
        steplog.assert_crash_safe_blocking(registration, given, effects=service.done)
