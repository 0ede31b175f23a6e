"""The registration job as the user has it: its shape, and what every condition and failure leads to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from registration_service import SMALL_MENU, menu_text, registration_input

from steplog import Fatal, JobHandle, Step, open_store
from steplog.engine.jobs import resume_blocking
from steplog.engine.plan import plan_of
from steplog.eventstore.store import Store
from steplog.examples.registration import Progress, registration, workflow
from steplog.examples.registration.api import Api
from steplog.examples.registration.effects import count_effects
from steplog.examples.registration.menu import HEADER, read_menu
from steplog.examples.registration.model import Registration
from steplog.examples.registration.places import SAMPLE_MENU

Handle = JobHandle[Progress]

NEEDS = {
    "restaurantRegistration": {"cloudwaitressAccount"},
    "websiteConfig": {"codeGeneration", "restaurantRegistration"},
    "servicesConfig": {"restaurantRegistration"},
    "paymentConfig": {"restaurantRegistration"},
    "menuImport": {"restaurantRegistration"},
    "syncOnboardingUser": {"createOnboardingUser", "restaurantRegistration"},
    "optionSets": {"menuImport"},
    "itemTags": {"menuImport"},
}
BLOCKING = {"cloudwaitressAccount", "restaurantRegistration", "optionSets", "itemTags"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(f"sqlite:///{tmp_path / 'log.db'}")) as opened:
        yield opened


def run(store: Store, work: Path, **changes: Any) -> Handle:
    with registration_input(work, **changes) as given:
        return registration.run(given, store=store)


def sub_steps(handle: Handle) -> dict[str, dict[str, Any]]:
    return {name: step for phase in handle.snapshot["phases"].values() for name, step in phase["sub_steps"].items()}


def statuses(handle: Handle, status: str) -> set[str]:
    return {name for name, step in sub_steps(handle).items() if step["status"] == status}


def reasons(handle: Handle) -> dict[str, str]:
    return {name: step["reason"] for name, step in sub_steps(handle).items() if step["status"] == "skipped"}


def failing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From now on the requests of these sub-steps fail for good."""
    post = workflow.post

    def post_or_fail(step: Any, api: Api, name: Any, body: dict[str, Any]) -> str:
        if name in names:
            raise Fatal(f"{name} failed: 500")
        return post(step, api, name, body)

    monkeypatch.setattr(workflow, "post", post_or_fail)


# --- its shape -------------------------------------------------------------------------------------------------------


def test_phases_and_sub_steps_have_the_users_names_and_order() -> None:
    plan = plan_of(registration)
    assert {phase["name"]: [step["name"] for step in phase["sub_steps"]] for phase in plan["phases"]} == {
        "phase1": ["cloudwaitressAccount", "codeGeneration", "createOnboardingUser", "uploadImages"],
        "phase2": [
            "restaurantRegistration",
            "websiteConfig",
            "servicesConfig",
            "paymentConfig",
            "menuImport",
            "syncOnboardingUser",
        ],
        "phase3": ["optionSets"],
        "phase4": ["itemTags"],
    }
    assert [phase.get("description") for phase in plan["phases"]] == [
        "Initial parallel operations",
        "Configuration (parallel after phase1)",
        "Menu setup",
        "Finalization",
    ]


def test_needs_failure_rules_and_policy_are_the_users() -> None:
    steps = {step["name"]: step for phase in plan_of(registration)["phases"] for step in phase["sub_steps"]}
    edges = {
        name: {edge.partition("/")[2] for edge in (*step["after"], *step["needs"])} for name, step in steps.items()
    }
    assert {name: found for name, found in edges.items() if found} == NEEDS
    assert {name for name, step in steps.items() if not step["optional"]} == BLOCKING
    for step in steps.values():
        policy = step["retry"]
        assert (policy["attempts"], policy["wait_s"], policy["factor"], policy["jitter"]) == (3, 2.0, 2.0, 0.0)
        assert step.get("timeout_s") == 300.0


# --- what it does ----------------------------------------------------------------------------------------------------


def test_sample_needs_no_input_and_everything_it_makes_is_real(tmp_path: Path, store: Store) -> None:
    handle = run(store, tmp_path)
    assert handle.status == "completed"
    assert statuses(handle, "completed") == set(sub_steps(handle)) - {"createOnboardingUser", "syncOnboardingUser"}
    menu = read_menu(SAMPLE_MENU)
    assert handle.result(workflow.menu_import) == len(menu.dishes)
    assert handle.context.menuImportSucceeded
    files = [Path(path) for path in handle.context.codeGenerationFilePaths or ()]
    assert len(files) == len(menu.categories) + 2
    pages = "".join(path.read_text(encoding="utf-8") for path in files)
    assert "Cheddar Gougères" in pages
    assert "&quot;eat them at once&quot;" in pages
    account = count_effects(list(store.read(handle.job_id)))
    assert account.problems == []
    assert [each.performed for each in account.keys if each.requests] == [1] * 6


def test_every_field_of_the_input_has_a_default() -> None:
    given = Registration()
    assert given.menu_file == SAMPLE_MENU
    assert given.folder == Path.cwd() / "steplog-registration" / given.restaurant_id


def test_given_menu_is_imported_by_its_bare_path(tmp_path: Path, store: Store) -> None:
    own = tmp_path / "own.csv"
    own.write_text(menu_text(*SMALL_MENU), encoding="utf-8")
    handle = run(store, tmp_path, menu=str(own))
    assert handle.result(workflow.menu_import) == 3
    assert handle.result(workflow.option_sets) == 1
    assert handle.result(workflow.item_tags) == {"nuts": 2, "shellfish": 1, "vegan": 1, "vegetarian": 1}


def test_relative_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = Registration.model_validate({"menu": "own.csv", "folder": "here"})
    monkeypatch.chdir("/")
    again = Registration.model_validate_json(given.model_dump_json())
    assert again.menu_file == tmp_path / "own.csv"
    assert again.folder == tmp_path / "here"


@pytest.mark.parametrize(
    "given",
    [
        {"restaurant_id": "../elsewhere"},
        {"steps_enabled": {"menuImprot": False}},
        {"menu": {"addOptionsets": True}},
        {"simulate": {"paymentConfig": "fail"}},
        {"pace": -1},
    ],
)
def test_misspelt_or_dangerous_input_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        Registration.model_validate(given)


# --- conditions ------------------------------------------------------------------------------------------------------


def test_sub_step_switched_off_is_skipped_as_disabled_in_config(tmp_path: Path, store: Store) -> None:
    off = dict.fromkeys(("uploadImages", "servicesConfig", "itemTags"), False)
    handle = run(store, tmp_path, steps_enabled=off)
    assert handle.status == "completed"
    assert {name: reasons(handle)[name] for name in off} == dict.fromkeys(off, "Disabled in config")


def test_each_condition_of_the_input_skips_with_its_reason(tmp_path: Path, store: Store) -> None:
    handle = run(
        store,
        tmp_path,
        account={"registerNewUser": False},
        onboarding={"createOnboardingUser": True, "syncOnboardingRecord": False},
        menu={"uploadImages": False, "addOptionSets": False, "addItemTags": False},
    )
    assert handle.status == "completed"
    assert reasons(handle) == {
        "cloudwaitressAccount": "New user registration disabled",
        "uploadImages": "Image upload disabled",
        "syncOnboardingUser": "Onboarding record sync disabled",
        "optionSets": "Option sets disabled",
        "itemTags": "Item tags disabled",
    }


def test_registration_goes_on_without_a_new_account(tmp_path: Path, store: Store) -> None:
    handle = run(store, tmp_path, account={"registerNewUser": False})
    assert "restaurantRegistration" in statuses(handle, "completed")


def test_onboarding_user_is_synced_only_once_it_was_created(tmp_path: Path, store: Store) -> None:
    created = run(store, tmp_path, onboarding={"createOnboardingUser": True})
    assert {"createOnboardingUser", "syncOnboardingUser"} <= statuses(created, "completed")
    assert created.context.onboardingUserCreated
    not_created = run(store, tmp_path)
    assert reasons(not_created) == {
        "createOnboardingUser": "Onboarding user creation disabled",
        "syncOnboardingUser": "onboardingUserCreated is not set",
    }


def test_without_a_menu_nothing_of_it_runs(tmp_path: Path, store: Store) -> None:
    handle = run(store, tmp_path, menu={"selectedMenuId": None})
    assert handle.status == "completed"
    assert {name: reasons(handle)[name] for name in ("uploadImages", "menuImport", "optionSets", "itemTags")} == {
        "uploadImages": "No menu selected",
        "menuImport": "No menu selected",
        "optionSets": "menuImportSucceeded is not set",
        "itemTags": "menuImportSucceeded is not set",
    }


# --- failures --------------------------------------------------------------------------------------------------------


def test_menu_that_cannot_be_read_is_tolerated_and_not_tried_again(tmp_path: Path, store: Store) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(",".join(HEADER) + "\r\n,All,,,,Mains,,,,Hake,cheap,,,,,\r\n", encoding="utf-8")
    handle = run(store, tmp_path, menu=str(bad))
    assert handle.status == "completed"
    steps = sub_steps(handle)
    assert statuses(handle, "failed") == {"codeGeneration", "uploadImages", "menuImport"}
    assert steps["menuImport"]["attempts"] == 1
    assert "bad.csv: line 2: dishPrice 'cheap'" in steps["menuImport"]["error"]["message"]
    assert reasons(handle) == {
        "createOnboardingUser": "Onboarding user creation disabled",
        "websiteConfig": "codeGenerationFilePaths is not set",
        "syncOnboardingUser": "onboardingUserCreated is not set",
        "optionSets": "menuImportSucceeded is not set",
        "itemTags": "menuImportSucceeded is not set",
    }


@pytest.mark.parametrize(
    ("name", "untouched"),
    [
        ("cloudwaitressAccount", {"restaurantRegistration", "menuImport", "optionSets"}),
        ("restaurantRegistration", {"websiteConfig", "menuImport", "paymentConfig", "optionSets"}),
    ],
)
def test_blocking_failure_stops_the_job_and_resuming_repeats_nothing(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, name: str, untouched: set[str]
) -> None:
    with registration_input(tmp_path) as given:
        with monkeypatch.context() as patch:
            failing(patch, name)
            failed = registration.run(given, store=store)
        assert failed.status == "failed"
        assert statuses(failed, "failed") == {name}
        assert untouched <= statuses(failed, "pending")
        resumed = resume_blocking(registration, failed.job_id, store, by="tester")
    assert resumed.status == "completed"
    assert {name, *untouched} <= statuses(resumed, "completed")
    done = statuses(failed, "completed")
    assert {each: sub_steps(resumed)[each]["attempts"] for each in done} == dict.fromkeys(done, 1)
    assert count_effects(list(store.read(resumed.job_id))).problems == []


def test_tolerated_failures_end_in_warnings(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["uploadImages", "websiteConfig", "servicesConfig", "paymentConfig"]
    failing(monkeypatch, *names)
    handle = run(store, tmp_path)
    assert handle.status == "completed"
    assert [warning.split()[0].partition("/")[2] for warning in handle.warnings] == names


# --- the long sub-step -----------------------------------------------------------------------------------------------


class Reports:
    """Takes what an attempt reports."""

    cancelled = False

    def __init__(self) -> None:
        self.cursors: list[Any] = []
        self.done: list[float] = []

    def checkpoint(self, cursor: Any) -> Any:
        self.cursors.append(cursor)

    def progress(self, done: float, total: float | None, note: str | None) -> None:
        self.done.append(done)

    def log(self, lines: Iterable[str]) -> None:
        raise AssertionError(list(lines))


def import_menu(work: Path, cursor: Any) -> Reports:
    """One attempt of the import, from that cursor; what it reported."""
    reports = Reports()
    step = Step(
        "job-1",
        Registration(folder=work, pace=0),
        Progress(),
        phase="phase2",
        name="menuImport",
        attempt=1,
        generation=1,
        idempotency_key="key-1",
        cursor=cursor,
        channel=reports,
    )
    workflow.menu_import(step)
    return reports


def test_import_reports_its_position_after_every_batch(tmp_path: Path) -> None:
    reports = import_menu(tmp_path, None)
    assert [cursor["rows"] for cursor in reports.cursors] == reports.done == list(range(20, 261, 20))


def test_import_goes_on_behind_its_last_checkpoint(tmp_path: Path) -> None:
    cursors = import_menu(tmp_path, None).cursors
    assert import_menu(tmp_path, cursors[4]).done == list(range(120, 261, 20))
    assert import_menu(tmp_path, cursors[-1]).done == []


def test_cursor_of_another_menu_is_not_gone_on_from(tmp_path: Path) -> None:
    menu = read_menu(SAMPLE_MENU)
    assert workflow.position({"rows": 40, "of": 260, "menu": menu.digest}, menu) == 40
    assert workflow.position({"rows": 40, "of": 260, "menu": "another"}, menu) == 0
    assert workflow.position(None, menu) == 0


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_credentials_reach_the_service_and_nothing_that_is_kept(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRATION_TOKEN", "canary-token-5f1c")
    monkeypatch.setenv("REGISTRATION_ORGANISATION", "canary-org-8d2a")
    sent: list[str] = []
    header = Api.post

    def spy(self: Api, *given: Any, **named: Any) -> str:
        sent.append(self.auth.token.get_secret_value())
        return header(self, *given, **named)

    monkeypatch.setattr(Api, "post", spy)
    handle = run(store, tmp_path)
    assert set(sent) == {"canary-token-5f1c"}
    assert "canary" not in repr(handle.snapshot)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "log.db" in kept
    assert not [path for path in kept if b"canary" in path.read_bytes()]
