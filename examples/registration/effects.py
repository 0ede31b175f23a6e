"""The witness: compares what a registration's log says with what happened outside of it.

The service notes every request before it looks for duplicates; the restaurant's database notes every batch of rows.
Neither knows the log, and the log knows neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from steplog.eventstore.events import Event
from steplog.examples.registration.menu import read_menu
from steplog.examples.registration.model import Registration
from steplog.examples.registration.places import request_log, response_log, restaurant_database, service_folder
from steplog.examples.registration.restaurant_db import BATCH_ROWS, imported_dishes, row_imports
from steplog.examples.registration.service import read_lines

MENU_IMPORT = "phase2/menuImport"

Life = tuple[str, str, str | None, int]
"""A sub-step between two resets: phase, name, item, generation."""


@dataclass(slots=True)
class KeyEffects:
    """What the log and the outside have of one idempotency key."""

    sub_step: str
    key: str
    attempts: int = 0
    retries: int = 0
    crashes: int = 0
    """Attempts that were in flight when their worker died."""
    by_hand: int = 0
    """Further lives that a person gave it, by resuming a failed job or by a reset that keeps the key."""
    failed: bool = False
    completed_at: str | None = None
    restarts: int = 0
    """Attempts that began after the completion."""
    requests: list[str] = field(default_factory=list)
    """When the service was asked, each time."""
    performed: int = 0
    """How often the service did the work."""

    @property
    def late(self) -> int:
        """Requests that came after the completion was in the log."""
        return sum(self.completed_at is not None and at > self.completed_at for at in self.requests)

    @property
    def allowed(self) -> int:
        """How many requests the log accounts for: one, and one for each retry, crash and further life."""
        return 1 + self.retries + self.crashes + self.by_hand

    def problems(self) -> list[str]:
        """Whatever happened more often than the log allows."""
        asked = len(self.requests)
        found = {
            f"ran again after it had completed ({self.restarts} times)": self.restarts,
            f"asked {asked} times in {self.attempts} attempts": asked > self.attempts,
            f"asked {asked} times (retries and crashes allow {self.allowed})": asked > self.allowed,
            f"asked {self.late} times after its completion was acknowledged": self.late,
            f"done {self.performed} times": self.performed > 1,
            "completed, but the service never did it": self.completed_at and asked and not self.performed,
        }
        return [f"{self.sub_step}: {problem}" for problem, holds in found.items() if holds]


class MenuEffects(NamedTuple):
    """What became of the menu in the restaurant's database."""

    rows: int
    dishes: int
    missing: int
    unexpected: int
    repeated_rows: int
    """Rows that were imported more than once under the one key."""
    crashes: int

    def problems(self) -> list[str]:
        """Whatever the import lost, or repeated beyond the batch that each crash may repeat."""
        allowed = self.crashes * BATCH_ROWS
        found = {
            f"{self.missing} dishes of the menu are not in the database": self.missing,
            f"{self.unexpected} dishes in the database are not on the menu": self.unexpected,
            f"{self.repeated_rows} rows imported again; {self.crashes} crashes allow {allowed}": self.repeated_rows
            > allowed,
        }
        return [f"{MENU_IMPORT}: {problem}" for problem, holds in found.items() if holds]


class Account(NamedTuple):
    """Every effect of a job, counted, and what is wrong with it: nothing, if the log can be trusted."""

    keys: list[KeyEffects]
    menu: MenuEffects | None
    problems: list[str]


def count_effects(events: Sequence[Event]) -> Account:
    """Count the effects of the job with this log, from the outside."""
    given = Registration.model_validate(events[0].data["input"])
    service = service_folder(given.folder)
    job_id = events[0].job_id
    requests = [line for line in read_lines(request_log(service)) if line["job_id"] == job_id]
    performed = [line for line in read_lines(response_log(service)) if line["job_id"] == job_id]
    keys = compare(events, requests, performed)
    menu = count_import(given, [each for each in keys if each.sub_step == MENU_IMPORT and each.completed_at])
    problems = [problem for each in keys for problem in each.problems()]
    return Account(keys, menu, problems + _unknown_keys(keys, requests) + (menu.problems() if menu else []))


def compare(
    events: Iterable[Event], requests: Iterable[dict[str, Any]], performed: Iterable[dict[str, Any]]
) -> list[KeyEffects]:
    """For each key that the log gave out, in its order, what the log and the service have of it."""
    found: dict[str, KeyEffects] = {}
    lives: dict[Life, KeyEffects] = {}
    for event in events:
        if event.type == "SubStepStarted":
            _note_start(event, found, lives)
        elif event.type == "JobResumed":
            _note_resume(lives.values())
        elif "sub_step" in event.data and _life(event) in lives:
            _note_outcome(event, lives[_life(event)])
    for line in requests:
        if line["key"] in found:
            found[line["key"]].requests.append(line["at"])
    for line in performed:
        if line["key"] in found:
            found[line["key"]].performed += 1
    return list(found.values())


def count_import(given: Registration, completed: Sequence[KeyEffects]) -> MenuEffects | None:
    """What a completed import left in the database; None where there was none."""
    if not completed:
        return None
    menu = read_menu(given.menu_file)
    database = restaurant_database(given.folder)
    present = imported_dishes(database)
    imports: Counter[int] = sum((row_imports(database, each.key) for each in completed), Counter())
    return MenuEffects(
        rows=len(menu.rows),
        dishes=len(present),
        missing=len(menu.dishes.keys() - present),
        unexpected=len(present - menu.dishes.keys()),
        repeated_rows=sum(times - 1 for times in imports.values()),
        crashes=sum(each.crashes for each in completed),
    )


def _note_start(event: Event, found: dict[str, KeyEffects], lives: dict[Life, KeyEffects]) -> None:
    key, life = event.data["idempotency_key"], _life(event)
    effects = found.setdefault(key, KeyEffects(f"{event.data['phase']}/{event.data['sub_step']}", key))
    if life in lives:
        effects.restarts += effects.completed_at is not None
    elif effects.attempts:
        effects.by_hand += 1
        effects.completed_at = None
    effects.attempts += 1
    lives[life] = effects


def _note_resume(lives: Iterable[KeyEffects]) -> None:
    for effects in lives:
        effects.by_hand += effects.failed
        effects.failed = False


def _note_outcome(event: Event, effects: KeyEffects) -> None:
    if event.type == "SubStepCompleted" and event.data.get("by", "engine") == "engine":
        effects.completed_at = event.recorded_at
    elif event.type == "SubStepFailed":
        effects.failed = True
    elif event.type == "SubStepRetryScheduled":
        effects.failed = False
        effects.retries += 1
    elif event.type == "SubStepInterrupted":
        effects.crashes += 1


def _life(event: Event) -> Life:
    data = event.data
    return data["phase"], data["sub_step"], data.get("item"), data.get("generation", 1)


def _unknown_keys(keys: Sequence[KeyEffects], requests: Iterable[dict[str, Any]]) -> list[str]:
    known = {each.key for each in keys}
    unknown = Counter(line["path"] for line in requests if line["key"] not in known)
    return [f"{path}: asked {times} times under a key that the log never gave out" for path, times in unknown.items()]
