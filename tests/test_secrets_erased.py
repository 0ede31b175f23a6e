"""Keys that go and keys that take over: erased secrets are read by nobody, and logs stay whole without them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from api_world import HERE
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from secrets_world import CANARIES, KEYS, OTHER_KEYS, Kept, Login, Order, echo, login, pay, secret, short

from steplog import run_worker
from steplog.api.app import create_app
from steplog.api.settings import ApiSettings
from steplog.cli import main
from steplog.engine import fork as forking
from steplog.engine import operators, pruning
from steplog.engine.allowed import allowed_actions
from steplog.engine.claiming import claim_job
from steplog.engine.errors import ActionRefused, SecretsClosed, SecretsErased, ValueRefused
from steplog.engine.handle import JobHandle
from steplog.engine.history import load
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.engine.keyring import Keyring
from steplog.engine.moving import export, import_jobs
from steplog.engine.rewrapping import Rewrapped, rewrap
from steplog.engine.vault import Vault
from steplog.engine.verification import verify_all
from steplog.engine.worker import Worker
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.testing.memory import MemoryStore


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)


def failed(store: Store, key: str | None = None) -> str:
    """A job that waits for a person, full of secrets."""
    return run_blocking(pay, Order(), store=store, key=key).job_id


def erased(store: Store, job_id: str) -> str:
    operators.erase(store, job_id, by="anna", reason="the customer asked for it")
    return job_id


def handle(store: Store, job_id: str) -> JobHandle[Kept]:
    return JobHandle(load(store, job_id).state, pay, Vault(job_id, store.data_keys))


# --- erased ----------------------------------------------------------------------------------------------------------


def test_erased_secrets_are_unreadable_and_the_log_is_whole(store: Store) -> None:
    job_id = failed(store)
    assert handle(store, job_id).result(login) == secret("result")
    erased(store, job_id)
    (said,) = [event for event in store.read(job_id) if event.type == "SecretsErased"]
    assert said.data == {"by": "anna", "reason": "the customer asked for it"}
    for reading in (lambda: handle(store, job_id).context, lambda: handle(store, job_id).result(login)):
        with pytest.raises(SecretsErased, match=job_id):
            reading()
    key = store.data_keys.find(job_id)
    assert key is not None
    assert key.wrapped is None
    assert list(verify_all(store)) == []


def test_erased_job_can_only_be_cancelled(store: Store) -> None:
    job_id = erased(store, failed(store))
    assert allowed_actions(load(store, job_id).state) == ["cancel"]
    with pytest.raises(SecretsErased):
        resume_blocking(pay, job_id, store, by="anna")
    actions: list[Callable[[], object]] = [
        lambda: operators.resume(store, job_id, by="anna"),
        lambda: operators.retry(store, job_id, by="anna"),
        lambda: operators.reset(store, job_id, "login", by="anna"),
        lambda: operators.set_context(store, job_id, {"note": "x"}, by="anna", definition=pay),
        lambda: forking.fork(store, job_id, by="anna", definition=pay),
        lambda: forking.fork(store, job_id, by="anna", at=20, definition=pay),
    ]
    for doing in actions:
        with pytest.raises(ActionRefused, match="secrets were erased"):
            doing()
    assert operators.cancel(store, job_id, by="anna").state["requested"] == "cancel"


def test_job_that_may_run_is_not_erased(store: Store) -> None:
    job_id = pay.submit(Order(), store=store)
    with pytest.raises(ActionRefused, match="pause or cancel it first"):
        erased(store, job_id)
    with Worker(store) as worker:
        worker.claim(job_id, pay)
        with pytest.raises(ActionRefused, match="pause or cancel it first"):
            erased(store, job_id)
    assert handle(store, job_id).context.from_the_start == secret("context from the start")


def test_erasing_says_why_and_again_does_nothing(store: Store) -> None:
    job_id = failed(store)
    with pytest.raises(ValueRefused, match="say why"):
        operators.erase(store, job_id, by="anna", reason=" ")
    erased(store, job_id)
    version = store.head(job_id).version
    erased(store, job_id)
    assert store.head(job_id).version == version


def test_who_read_the_job_before_it_was_erased_cannot_claim_it(store: Store) -> None:
    job_id = failed(store)
    before = load(store, job_id)
    erased(store, job_id)
    with Worker(store) as worker, pytest.raises(SecretsErased):
        claim_job(store, worker.clock, worker.worker_id, before, resume_by="ben")


def test_fork_cannot_read_what_was_erased_of_its_parent(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    parent = failed(store)
    fork = forking.fork(store, parent, by="anna", definition=pay).state["job_id"]
    assert handle(store, fork).result(login) == secret("result")
    erased(store, parent)
    with pytest.raises(SecretsErased, match=f"job {parent}, which it was forked from"):
        _ = handle(store, fork).context
    caplog.set_level(logging.WARNING)
    run_worker(pay, store=store, one_shot=True)
    assert f"job {fork} is left to other workers" in caplog.text
    assert store.head(fork).columns.status == "queued"


def test_erased_fork_leaves_its_parent_readable(store: Store) -> None:
    parent = failed(store)
    fork = forking.fork(store, parent, by="anna", definition=pay).state["job_id"]
    resume_blocking(pay, fork, store, by="anna")
    erased(store, fork)
    assert handle(store, parent).result(login) == secret("result")


def test_key_of_an_erased_job_stays_taken(store: Store) -> None:
    erased(store, failed(store, key="r42"))
    with pytest.raises(SecretsErased):
        pay.submit(Order(), store=store, key="r42")


def test_wrapped_key_is_in_no_file_after_it_was_destroyed(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        job_id = failed(store)
        key = store.data_keys.find(job_id)
        assert key is not None
        assert key.wrapped is not None
    assert key.wrapped.encode() in (tmp_path / "steplog.db").read_bytes()
    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        erased(store, job_id)
    for file in tmp_path.iterdir():
        assert key.wrapped.encode() not in file.read_bytes()


def test_people_see_that_secrets_were_erased(
    sqlite_store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = failed(sqlite_store)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["--db", sqlite_store.url, "--module", "secrets_world", *words])

    assert run("secrets", "erase", job_id).exit_code == 2
    done = run("secrets", "erase", job_id, "--reason", "asked to", "--by", "anna")
    assert (done.exit_code, "SecretsErased" in done.stdout) == (0, True)
    assert "nothing of it can run any more" in done.stdout
    assert not any("resume" in said for said in (done.stdout, run("show", job_id).stderr))
    assert "(erased)" in run("show", job_id, "--context").stdout
    assert "(erased)" in run("-o", "json", "show", job_id).stdout
    assert "secrets were erased" in run("show", job_id).stdout
    assert "asked to" in run("events", job_id).stdout
    assert run("verify").exit_code == 0
    resumed = run("resume", job_id)
    assert resumed.exit_code == 4
    assert "erased" in resumed.stderr
    client = TestClient(create_app(sqlite_store, ApiSettings(modules=["secrets_world"]), "tester"), base_url=HERE)
    assert client.get(f"/api/v1/jobs/{job_id}").json()["context"]["card"] == "(erased)"
    page = client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"}).text
    assert "Its secrets were erased" in page
    assert "(erased)" in page


# --- verified --------------------------------------------------------------------------------------------------------


def forge(store: Store, changes: str, job_id: str) -> None:
    """Change the table of keys behind the store's back."""
    if isinstance(store, PostgresStore):
        statement: Any = f"update {{s}}.data_keys set {changes} where job_id = %s returning true"  # noqa: S608
        store._connections.transaction(lambda run: run(statement, [job_id]))
        return
    assert isinstance(store, SQLiteStore)
    with store._writing() as connection:
        connection.execute(f"update data_keys set {changes} where job_id = ?", [job_id])  # noqa: S608


def test_key_that_is_there_again_is_found(store: Store) -> None:
    job_id = erased(store, failed(store))
    forge(store, "wrapped = 'k1:again', erased_at = null", job_id)
    (found,) = verify_all(store)
    assert (found.job_id, "in the store again" in found.why) == (job_id, True)
    erased(store, job_id)
    assert list(verify_all(store)) == []


def test_key_that_went_without_a_word_is_found(store: Store) -> None:
    job_id = failed(store)
    forge(store, "wrapped = null, erased_at = '2026-01-01T00:00:00.000000Z'", job_id)
    (found,) = verify_all(store)
    assert (found.job_id, "no event says" in found.why) == (job_id, True)


# --- rotated ---------------------------------------------------------------------------------------------------------


def test_new_key_takes_over_and_the_old_one_can_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = failed(store)
    gone = erased(store, failed(store))
    monkeypatch.setenv("STEPLOG_KEYS", f"{OTHER_KEYS},{KEYS}")
    new = failed(store)
    assert {key.job_id: (key.wrapped or "")[:3] for key in store.data_keys.after()} == {
        old: "k1:",
        gone: "",
        new: "k2:",
    }
    before = [event.hash for event in store.read(old)]
    assert rewrap(store) == Rewrapped(rewrapped=1, current=1, closed=0)
    assert rewrap(store) == Rewrapped(rewrapped=0, current=2, closed=0)
    monkeypatch.setenv("STEPLOG_KEYS", OTHER_KEYS)
    assert [handle(store, job_id).result(login) for job_id in (old, new)] == [secret("result")] * 2
    assert [event.hash for event in store.read(old)] == before
    assert list(verify_all(store)) == []


def test_keys_that_cannot_be_opened_are_left_and_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, told = failed(store), list[str]()
    monkeypatch.setenv("STEPLOG_KEYS", OTHER_KEYS)
    assert rewrap(store, told.append).closed == 1
    assert job_id in told[0]
    monkeypatch.delenv("STEPLOG_KEYS")
    with pytest.raises(SecretsClosed, match="no key is configured"):
        rewrap(store)
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    assert handle(store, job_id).result(login) == secret("result")


def test_rotation_as_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(main, ["secrets", "new-key", "k9"]).stdout.strip()
    assert Keyring.of(made).first == "k9"
    assert CliRunner().invoke(main, ["secrets", "new-key", "k 9"]).exit_code == 2
    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        failed(store)
        monkeypatch.setenv("STEPLOG_KEYS", f"{made},{KEYS}")
        done = CliRunner().invoke(main, ["secrets", "rewrap"])
        assert (done.exit_code, done.stdout) == (0, "1 rewrapped, 0 were so already, 0 cannot be opened\n")
        monkeypatch.setenv("STEPLOG_KEYS", KEYS)
        assert CliRunner().invoke(main, ["-o", "json", "secrets", "rewrap"]).exit_code == 1


# --- taken elsewhere -------------------------------------------------------------------------------------------------


def test_export_brings_its_keys_only_if_asked_to(store: Store) -> None:
    parent = failed(store)
    fork = forking.fork(store, parent, by="anna", definition=pay).state["job_id"]
    resume_blocking(pay, fork, store, by="anna")
    lines, with_keys = list(export(store, fork)), list(export(store, fork, with_keys=True))
    assert lines[1:] == with_keys[1:]
    closed, opened = MemoryStore(), MemoryStore()
    list(import_jobs(closed, lines))
    with pytest.raises(SecretsClosed, match=f"key of job {parent} .* is not in this store"):
        handle(closed, fork).result(login)
    assert list(verify_all(closed)) == []
    list(import_jobs(opened, with_keys))
    assert handle(opened, fork).result(login) == secret("result")
    list(import_jobs(closed, with_keys))
    assert handle(closed, fork).result(login) == secret("result")


def test_erased_job_is_erased_wherever_its_log_goes(store: Store) -> None:
    job_id = failed(store)
    elsewhere: Store = MemoryStore()
    before = list(export(store, job_id, with_keys=True))
    list(import_jobs(elsewhere, before))
    erased(store, job_id)
    after = list(export(store, job_id, with_keys=True))
    list(import_jobs(elsewhere, after))
    list(import_jobs(store, before))
    for each in (store, elsewhere):
        with pytest.raises(SecretsErased):
            handle(each, job_id).result(login)
        assert list(verify_all(each)) == []


def test_pruned_job_leaves_its_key_for_its_export_and_its_forks(store: Store) -> None:
    given = Login(user="anna", password=secret("password"))
    job_id = short.run(given, store=store).job_id
    fork = forking.fork(store, job_id, by="anna", definition=short).state["job_id"]
    assert pruning.prune(store, list(export(store, job_id))) == 1
    state = load(store, fork).state
    assert JobHandle(state, short, Vault(fork, store.data_keys)).result(echo) == given.password
    assert list(verify_all(store)) == []


def test_secret_that_was_left_alone_stays_what_it_was_when_the_input_is_edited(
    sqlite_store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = failed(sqlite_store)
    monkeypatch.chdir(tmp_path)
    words = ["--db", sqlite_store.url, "--module", "secrets_world", "edit-input", job_id, "-P", "shop=other"]
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0
    state = load(sqlite_store, job_id).state
    assert state["input"]["shop"] == "other"
    vault = Vault(job_id, sqlite_store.data_keys)
    from steplog.engine.values import load as load_value

    edited = load_value(state["input"], Order, vault)
    assert edited == Order(shop="other")
    moved = {**state["input"], "shop": state["input"]["token"]}
    with pytest.raises(Exception, match="shop") as refused:
        operators.edit_input(sqlite_store, job_id, moved, by="anna", definition=pay)
    assert CANARIES["token"] not in str(refused.value)
