"""Being told: each notice at least once and in order, signed, by one process, whatever the target does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from steplog import Fatal, Step, Workflow
from steplog.engine import notices
from steplog.engine.config import ConfigError, read_config
from steplog.engine.notices import Notice, Notifier, Target, configured_targets, signature, webhook
from steplog.eventstore.store import Store


def workflow() -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("told")

    @wf.sub_step
    def work(step: Step) -> int:
        return 1

    return wf


def failing() -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("failing")

    @wf.sub_step
    def work() -> int:
        raise Fatal("no")

    return wf


def begun(store: Store, *targets: Target) -> Notifier:
    """A notifier whose targets have their place in the feed."""
    notifier = Notifier(store, targets)
    told(notifier)
    return notifier


def told(notifier: Notifier) -> None:
    """Until nothing is left to tell."""
    for place in notifier._places:
        while notifier.advance(place):
            pass


def test_targets_are_told_of_what_they_asked_for_from_now_on(store: Store) -> None:
    heard: list[Notice] = []
    ends: list[Notice] = []
    workflow().run(store=store)
    notifier = begun(store, Target("all", heard.append), Target("failures", ends.append, ["failed"]))
    done, failed = workflow().run(store=store, key="k"), failing().run(store=store)
    told(notifier)
    told(notifier)
    assert [(notice.kind, notice.job_id) for notice in heard] == [("completed", done.job_id), ("failed", failed.job_id)]
    assert (heard[0].workflow, heard[0].key, heard[0].version) == ("told", "k", done.version)
    assert heard[1].data["error"]["message"] == "no"
    assert ends == heard[1:]


def test_who_waits_for_a_person_is_told_and_timers_are_not(store: Store) -> None:
    heard: list[Notice] = []
    notifier = begun(store, Target("all", heard.append))
    wf: Workflow[Any, Any] = Workflow("approval")
    wf.sleep("1ms", name="rest")
    wf.wait_for_signal("approved", str, timeout="1ms", default="nobody")
    wf.run(store=store)
    told(notifier)
    assert [(notice.kind, notice.data.get("signal")) for notice in heard] == [
        ("waiting", "approved"),
        ("completed", None),
    ]


def test_a_target_that_fails_is_told_again_before_what_comes_after(store: Store) -> None:
    heard: list[str] = []
    fails = [True]

    def tell(notice: Notice) -> None:
        if fails[0] and len(heard) == 1:
            raise ConnectionError("away")
        heard.append(notice.job_id)

    notifier = begun(store, Target("flaky", tell))
    jobs = [workflow().run(store=store).job_id for _ in range(3)]
    with pytest.raises(ConnectionError):
        told(notifier)
    assert heard == jobs[:1]
    fails[0] = False
    told(notifier)
    assert heard == jobs


def test_a_failing_target_is_left_alone_for_longer_and_longer_and_the_others_are_told(store: Store) -> None:
    heard: list[Notice] = []

    def refuse(notice: Notice) -> None:
        raise ConnectionError("away")

    notifier = begun(store, Target("broken", refuse), Target("sound", heard.append))
    workflow().run(store=store)
    broken, sound = notifier._places
    assert (notifier._turn(broken), notifier._turn(sound)) == (False, True)
    assert (broken.failures, len(heard), notifier._turn(broken)) == (1, 1, False)
    broken.not_before = 0.0
    notifier._turn(broken)
    assert broken.failures == 2
    broken.not_before, broken.failures = 0.0, 5_000
    notifier._turn(broken)
    assert broken.failures == 5_001


def test_of_two_processes_one_tells_and_another_takes_over_from_where_it_died(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, str]] = []
    first = begun(store, Target("one", lambda notice: heard.append(("first", notice.job_id))))
    second = begun(store, Target("one", lambda notice: heard.append(("second", notice.job_id))))
    jobs = [workflow().run(store=store).job_id]
    told(second)
    told(first)
    assert heard == [("first", jobs[0])]
    monkeypatch.setattr(notices, "LEASE_S", -1.0)
    told(first)  # its lease ends now
    monkeypatch.undo()
    checkpoint = store.projected.checkpoints()["notices/one"]
    first._move(first._places[0].target, checkpoint, {**checkpoint, "until": store.now()})
    jobs.append(workflow().run(store=store).job_id)
    told(second)
    told(first)
    assert heard == [("first", jobs[0]), ("second", jobs[1])]


def test_a_webhook_is_posted_signed_and_anything_but_success_is_a_failure(store: Store) -> None:
    answers = [500, 302, 204]
    got: list[tuple[Any, bytes]] = []
    with http_server(answers, got) as url:
        target = webhook("hook", url, "secret")
        notifier = begun(store, target)
        job_id = workflow().run(store=store).job_id
        for _ in range(2):
            with pytest.raises(OSError, match=r"HTTP Error"):
                told(notifier)
        told(notifier)
    assert len(got) == 3
    assert {headers["Steplog-Event-Id"] for headers, _ in got} == {orjson.loads(got[0][1])["event_id"]}
    for headers, body in got:
        seconds = int(headers["Steplog-Signature"].split(",")[0].removeprefix("t="))
        assert headers["Steplog-Signature"] == signature("secret", seconds, body)
        assert orjson.loads(body)["job_id"] == job_id


@contextmanager
def http_server(answers: list[int], got: list[tuple[Any, bytes]]) -> Iterator[str]:
    """A server on this machine that answers in turn and keeps what it got."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers[len(got) - 1])
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        log_message: Callable[..., None] = lambda *_: None  # silent

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_notifier_runs_in_a_thread_until_it_is_stopped(store: Store) -> None:
    heard: list[Notice] = []
    arrived, stop = threading.Event(), threading.Event()

    def tell(notice: Notice) -> None:
        heard.append(notice)
        arrived.set()

    notifier = begun(store, Target("all", tell))
    thread = threading.Thread(target=notifier.run, args=(stop,))
    thread.start()
    workflow().run(store=store)
    arrived.wait(20)
    stop.set()
    thread.join(10)
    assert (len(heard), thread.is_alive()) == (1, False)


def test_webhooks_come_from_the_config_file_and_their_secrets_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "steplog.toml").write_text(
        '[[notify]]\nurl = "https://ops.example/hook"\nsecret_env = "S"\non = ["failed"]\n'
    )
    tables = read_config(environment={}, folder=tmp_path).notify.value
    (target,) = configured_targets(tables, {"S": "secret"})
    assert (target.name, list(target.kinds)) == ("https://ops.example/hook", ["failed"])
    wrong = [{"url": "file:///etc/passwd", "secret_env": "S"}, {"url": "https://x"}, {**tables[0], "on": ["rain"]}]
    for table in wrong:
        with pytest.raises(ConfigError):
            configured_targets([table], {"S": "secret"})
    with pytest.raises(ConfigError, match="no secret"):
        configured_targets(tables, {})
