"""Where things lie in a restaurant's work folder, and the words that client and service say to each other."""

from __future__ import annotations

from pathlib import Path

KEY_HEADER = "Idempotency-Key"
JOB_HEADER = "Steplog-Job"
SIMULATE_HEADER = "Simulate-Failure"
REPLAYED_HEADER = "Idempotent-Replayed"

SAMPLE_MENU = Path(__file__).with_name("sample_menu.csv")


def site_folder(work: Path) -> Path:
    """The generated site."""
    return work / "site"


def restaurant_database(work: Path) -> Path:
    """The restaurant's own database, which the menu is imported into."""
    return work / "restaurant.db"


def service_folder(work: Path) -> Path:
    """What the local service keeps."""
    return work / "service"


def request_log(service: Path) -> Path:
    """Every request the service got, one JSON line each, written before anything is done about it."""
    return service / "requests.jsonl"


def response_log(service: Path) -> Path:
    """What the service did and answered, one JSON line for each idempotency key."""
    return service / "responses.jsonl"


def address_file(service: Path) -> Path:
    """Where the running service listens."""
    return service / "address.json"


def lock_file(service: Path) -> Path:
    """Held by the one service of this folder for as long as it runs."""
    return service / "lock"


def error_log(service: Path) -> Path:
    """What a service started by the job wrote to stderr."""
    return service / "service.log"
