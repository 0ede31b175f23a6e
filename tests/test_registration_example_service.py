"""The registration's HTTP service: it writes first, does a key's work once, and lives as long as it is needed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from registration_service import failing_with, running_service, send

from steplog.examples.registration import api
from steplog.examples.registration.places import address_file, request_log, response_log
from steplog.examples.registration.service import Ledger, Service, read_lines, run_service


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with running_service(tmp_path) as address:
        yield address


def test_known_key_gets_the_stored_answer_and_both_requests_are_noted(tmp_path: Path, url: str) -> None:
    first = send(f"{url}/websiteConfig")
    again = send(f"{url}/websiteConfig")
    assert first == (201, {"reference": "websiteConfig-0001"}, None)
    assert again == (201, {"reference": "websiteConfig-0001"}, "true")
    assert [line["key"] for line in read_lines(request_log(tmp_path))] == ["key-1", "key-1"]
    assert len(read_lines(response_log(tmp_path))) == 1


def test_key_used_for_another_request_is_refused(url: str) -> None:
    send(f"{url}/websiteConfig", body={"a": 1})
    assert send(f"{url}/websiteConfig", body={"a": 2})[0] == 422
    assert send(f"{url}/paymentConfig", body={"a": 1})[0] == 422


def test_request_without_key_or_token_is_refused(url: str) -> None:
    assert send(f"{url}/websiteConfig", key="")[0] == 400
    assert send(f"{url}/websiteConfig", Authorization="")[0] == 401


def test_first_request_of_a_key_fails_when_asked_to_and_the_next_succeeds(tmp_path: Path, url: str) -> None:
    answers = [send(f"{url}/servicesConfig", **failing_with("503 x1"))[0] for _ in range(2)]
    assert answers == [503, 201]
    assert len(read_lines(request_log(tmp_path))) == 2


def test_every_request_fails_when_asked_to_without_a_number(tmp_path: Path, url: str) -> None:
    assert [send(f"{url}/paymentConfig", **failing_with("502"))[0] for _ in range(3)] == [502] * 3
    assert read_lines(response_log(tmp_path)) == []


def test_answers_and_failures_outlive_the_process(tmp_path: Path) -> None:
    Ledger(tmp_path).post("/a", "key-1", "job-1", b"", "503 x1")
    assert Ledger(tmp_path).post("/a", "key-1", "job-1", b"", "503 x1") == (201, {"reference": "a-0001"}, False)
    assert Ledger(tmp_path).post("/a", "key-1", "job-1", b"").replayed


def test_line_cut_off_by_a_crash_is_dropped_and_the_log_goes_on(tmp_path: Path) -> None:
    Ledger(tmp_path).post("/a", "key-1", "job-1", b"")
    with request_log(tmp_path).open("a") as log:
        log.write('{"key": "key-')
    Ledger(tmp_path).post("/a", "key-2", "job-1", b"")
    assert [line["key"] for line in read_lines(request_log(tmp_path))] == ["key-1", "key-2"]


def test_request_is_noted_before_duplicates_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)

    class Blind(dict[str, object]):
        def get(self, key: str, default: object = None) -> object:
            raise LookupError(key)

    monkeypatch.setattr(ledger, "_answers", Blind())
    with pytest.raises(LookupError):
        ledger.post("/a", "key-1", "job-1", b"")
    assert [line["key"] for line in read_lines(request_log(tmp_path))] == ["key-1"]


def test_service_ends_by_itself_when_nobody_asks(tmp_path: Path) -> None:
    assert run_service(tmp_path, 0, idle_s=0.0)


def test_only_one_service_runs_for_a_folder(tmp_path: Path) -> None:
    service = api.start_service(tmp_path)
    try:
        api.wait_for_service(tmp_path)
        assert not run_service(tmp_path, 0, idle_s=0.0)
    finally:
        service.kill()
        service.wait()


def test_local_service_is_started_once_and_again_after_it_was_killed(tmp_path: Path) -> None:
    pids = []
    for _ in range(2):
        url = api.local_service(tmp_path)
        try:
            assert api.local_service(tmp_path) == url
        finally:
            pids.append(json.loads(address_file(tmp_path).read_text())["pid"])
            os.kill(pids[-1], signal.SIGKILL)
        assert api.running_service(tmp_path) is None
    assert pids[0] != pids[1]


def test_another_service_at_the_noted_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with running_service(tmp_path / "other") as url:
        address = {"port": int(url.rpartition(":")[2]), "instance": "ours", "pid": 1}
        address_file(tmp_path).write_text(json.dumps(address))
        assert api.running_service(tmp_path) is None


def test_error_of_the_service_names_sub_step_and_status(url: str) -> None:
    with pytest.raises(api.RequestFailed, match=r"^paymentConfig failed: 502$"):
        api.registration_api().post(url, "paymentConfig", {}, key="key-1", job_id="job-1", simulate="502")


def test_service_that_is_not_there_is_an_error_of_the_sub_step(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        gone = f"http://127.0.0.1:{service.server_port}"
    with pytest.raises(api.RequestFailed, match=r"^menuImport failed: "):
        api.registration_api().post(gone, "menuImport", {}, key="key-1", job_id="job-1")
