"""The registration's service inside the test process, and registrations that use it and wait for nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steplog.examples.registration.model import Registration
from steplog.examples.registration.places import (
    JOB_HEADER,
    KEY_HEADER,
    REPLAYED_HEADER,
    SIMULATE_HEADER,
    service_folder,
)
from steplog.examples.registration.service import Service

SMALL_MENU = [
    ("Starters", "d-1", "Leek Vinaigrette", "8.50", "vegetarian"),
    ("Mains", "", "Pad Thai (Tofu)", "13.50", "vegan, nuts"),
    ("Mains", "", "Pad Thai (Prawn)", "16.50", "shellfish; nuts"),
    ("Vegan", "", "Pad Thai (Tofu)", "13.5", "vegan, nuts"),
]


def menu_text(*dishes: tuple[str, str, str, str, str]) -> str:
    """A menu's CSV from (category, dish id, dish, price, tags)."""
    header = (
        "menuID,menuName,menuDisplayName,menuDescription,categoryID,categoryName,categoryDisplayName,"
        "categoryDescription,dishID,dishName,dishPrice,dishType,dishDescription,displayName,printName,tags\r\n"
    )
    rows = (
        f',All,,,,{category},,,{dish_id},{name},{price},,,,,"{tags}"' for category, dish_id, name, price, tags in dishes
    )
    return header + "".join(f"{row}\r\n" for row in rows)


@contextmanager
def running_service(folder: Path) -> Iterator[str]:
    """The service of a folder, in a thread; its address."""
    with Service(folder) as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield f"http://127.0.0.1:{service.server_port}"
        finally:
            service.shutdown()
            thread.join()


@contextmanager
def registration_input(work: Path, **changes: Any) -> Iterator[Registration]:
    """A registration in that folder, with a service of its own, that asks for no failure and waits for nothing."""
    with running_service(service_folder(work)) as url:
        given = {"folder": work, "service_url": url, "pace": 0, "simulate": {}}
        yield Registration.model_validate(given | changes)


def send(url: str, key: str = "key-1", body: object = None, **headers: str) -> tuple[int, dict[str, Any], str | None]:
    """POST to the service: status, answer, and whether it says that it replayed."""
    given = {KEY_HEADER: key, JOB_HEADER: "job-1", "Authorization": "Bearer t"} | headers
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=10)) as connection:
        sent = {name: value for name, value in given.items() if value}
        connection.request("POST", address.path, json.dumps(body).encode(), sent)
        response = connection.getresponse()
        return response.status, json.load(response), response.headers.get(REPLAYED_HEADER)


def failing_with(failure: str) -> dict[str, str]:
    """Headers that ask the service to fail."""
    return {SIMULATE_HEADER: failure}
