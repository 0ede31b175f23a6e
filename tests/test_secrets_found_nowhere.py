"""Canary secrets, planted wherever a job may tell one, are found nowhere: not in the store, not in what people see."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import cast
from urllib.parse import quote

import psycopg
import pytest
from api_world import HERE
from click.testing import CliRunner
from fastapi.testclient import TestClient
from psycopg import sql
from pydantic import SecretStr
from secrets_world import CANARIES, KEYS, PEM, Login, Order, canary, pay, seen

from steplog.api.app import create_app
from steplog.api.settings import ApiSettings
from steplog.cli import main
from steplog.engine import fork as forking
from steplog.engine import operators
from steplog.engine.errors import InputRefused, ValueRefused
from steplog.engine.history import load
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.engine.moving import export
from steplog.engine.notices import KINDS, Notice, Notifier, Target
from steplog.engine.verification import verify_all
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sealed import SEALED
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.projections.runner import ProjectionRunner

CLEAR = {**CANARIES, "the second line of a key": canary("second line")}
SHOWN_BY = (
    "show {}", "show {} --context", "show {} --raw", "-o json show {}", "-o json show {} --at 9", "events {}",
    "-o json events {}", "-o jsonl events {} --reverse", "replay {}", "-o json replay {}", "diff {} 1 40",
    "-o json diff {} 1 40", "timeline {}", "-o json timeline {}", "resume-point {}", "-o json resume-point {}",
    "compare {} {fork}", "-o json compare {} {fork}", "ls", "-o json ls", "export --all", "export {} --with-keys",
    "verify", "doctor", "config", "-o json config", "stats", "-o json stats", "items {} begin/each",
    "-o json items {} begin/each", "reset {} login --dry-run", "run secrets_world --no-watch --input @{wrong}",
    "submit secrets_world -P token=", "set {} card:=7", "edit-input {} -P pin:=7", "workers",
    "complete {} stop --result 8", "graph secrets_world",
)  # fmt: skip
ASKED = (
    "", "?at=9", "/resume-point", "/timeline", "/timeline.svg", "/diff?from=1", "/events?limit=1000",
    "/sub-steps/begin/each/items",
)  # fmt: skip
PAGES = (
    "/jobs", "/jobs/{}", "/jobs/{}?at=40&since=1&step=tell/message", "/jobs/{}?step=begin/each", "/jobs/{}/events",
    "/jobs/{}/events.jsonl", "/jobs/{}/do/resume", "/jobs/{}/do/edit-input", "/workflows/pay", "/system",
)  # fmt: skip


def found_in(text: str) -> list[str]:
    """The places of the secrets that stand in it: whole, for the greater part, or as a URL writes them."""
    return [
        place
        for place, value in CLEAR.items()
        if any(form in text for form in (value, quote(value, safe=""), value[:-6], value[6:]))
    ]


def everything_stored(store: Store, request: pytest.FixtureRequest) -> str:
    """Every byte of the files, or every row of every table."""
    if not isinstance(store, PostgresStore):
        files = sorted(request.getfixturevalue("tmp_path").glob("steplog.db*"))
        return "".join(file.read_bytes().decode("latin-1") for file in files)
    schema = request.getfixturevalue("postgres_schema")
    with psycopg.connect(request.getfixturevalue("postgres_dsn")) as connection:
        named = "select table_name from information_schema.tables where table_schema = %s"
        tables = [name for (name,) in connection.execute(named, [schema])]
        select = sql.SQL("select t::text from {} as t")
        rows = [row for name in tables for row in connection.execute(select.format(sql.Identifier(schema, name)))]
    assert {"events", "snapshots", "jobs", "data_keys", "projections"} <= set(tables)
    return str(rows)


class Lived:
    """A job that failed, was edited by hand, forked, and undone."""

    def __init__(self, store: Store) -> None:
        seen.clear()
        self.heard: list[Notice] = []
        notifier = Notifier(store, [Target("all", self.heard.append, list(KINDS))])
        notifier.advance(notifier._places[0])
        self.job_id = job_id = run_blocking(pay, Order(), store=store, key="r42").job_id
        secret = CANARIES
        operators.set_context(store, job_id, {"card": secret["set by hand"]}, by="anna", definition=pay)
        given = load(store, job_id).state["input"]
        edited = {**given, "spare": secret["given by hand"]}
        operators.edit_input(store, job_id, edited, by="anna", definition=pay)
        values = {"login": {"user": "x", "password": secret["set in a fork"]}}
        self.fork_id = forking.fork(store, job_id, by="anna", values=values, definition=pay).state["job_id"]
        resume_blocking(pay, self.fork_id, store, by="anna")
        operators.cancel(store, job_id, by="anna")
        resume_blocking(pay, job_id, store, by="anna")
        ProjectionRunner(store).catch_up()
        while notifier.advance(notifier._places[0]):
            pass


@pytest.fixture
def lived(store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Lived:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    caplog.set_level(logging.DEBUG)
    return Lived(store)


def test_handlers_are_given_what_is_found_nowhere_else(
    lived: Lived,
    store: Store,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert len(CLEAR) >= 40
    assert {PEM, CANARIES["token"], CANARIES["pin"], CANARIES["result"], CANARIES["item b"]} <= set(seen)
    assert {CANARIES["set in a fork"], CANARIES["card"], CANARIES["result of item b"]} <= set(seen)
    log = str(list(store.read(lived.job_id)))
    assert log.count(SEALED) > 40
    assert log.count("********") > 15
    assert found_in(everything_stored(store, request)) == []
    assert found_in("".join(line.decode() for line in export(store, lived.job_id, with_keys=True))) == []
    assert len(lived.heard) > 2
    assert found_in(str(lived.heard)) == []
    assert found_in(caplog.text + str(capfd.readouterr())) == []
    assert list(verify_all(store)) == []


def test_commands_show_none(sqlite_store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    lived = Lived(sqlite_store)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(Order().model_dump_json().replace('"r42"', "7").replace("**********", CANARIES["token"]))
    monkeypatch.setenv("STEPLOG_MODULES", "secrets_world")
    monkeypatch.setenv("STEPLOG_DATABASE_URL", sqlite_store.url)
    monkeypatch.chdir(tmp_path)
    for words in SHOWN_BY:
        command = words.replace("{fork}", lived.fork_id).replace("{wrong}", str(wrong)).replace("{}", lived.job_id)
        result = CliRunner().invoke(main, ["--debug", *command.split()], catch_exceptions=False)
        text = result.output + result.stderr
        assert text, words
        assert "unexpected" not in text, text
        assert found_in(text) == [], words
        assert SEALED not in text or "export" in words, words
        assert KEYS[3:] not in text, words


@pytest.mark.parametrize("modules", [["secrets_world"], []], ids=["with the code", "without"])
def test_answers_and_pages_show_none(lived: Lived, store: Store, modules: list[str]) -> None:
    app = create_app(store, ApiSettings(modules=modules), "tester")
    client = TestClient(app, base_url=HERE, raise_server_exceptions=False, follow_redirects=False)
    shown = {path: client.get(f"/api/v1/jobs/{lived.job_id}{path}") for path in ASKED}
    shown |= {path: client.get(path.format(lived.job_id), headers={"Accept": "text/html"}) for path in PAGES}
    shown |= {path: client.get(path) for path in ("/api/v1/jobs", "/metrics", "/openapi.json")}
    refused = {"shop": 7, "token": CANARIES["token"], "told": {"message": CANARIES["message"]}}
    shown["refused"] = client.post("/api/v1/workflows/pay/jobs", json={"input": refused})
    for path, answer in shown.items():
        assert answer.status_code < 500, path
        assert answer.text, path
        assert found_in(answer.text) == [], path
        assert SEALED not in answer.text, path
    assert "********" in shown[""].text
    assert "********" in shown["/jobs/{}"].text


def test_wrong_values_are_refused_without_being_told(lived: Lived, store: Store) -> None:
    given = {"shop": 7, "login": {"user": CANARIES["message"], "password": [CANARIES["password"]]}}
    with pytest.raises(InputRefused, match=r"login\.password") as refused:
        pay.submit(cast("Order", given), store=store)
    assert found_in("".join(traceback.format_exception(refused.value))) == []
    with pytest.raises(ValueRefused, match="card") as of_context:
        operators.set_context(store, lived.fork_id, {"card": [CANARIES["card"]]}, by="anna", definition=pay)
    assert found_in("".join(traceback.format_exception(of_context.value))) == []


def test_login_has_a_secret_that_pydantic_hides_by_itself() -> None:
    assert str(Login(user="anna", password=SecretStr("x"))) == "user='anna' password=SecretStr('**********')"
