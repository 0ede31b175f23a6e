"""Secrets in the log: refused without keys, sealed with them, compared without being opened, opened for handlers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr, field_serializer, model_validator
from secrets_world import KEYS, OTHER_KEYS, Kept, Login, Order, apart, pay, secret, works
from typing_extensions import TypedDict

from steplog import Context, Step, Workflow, result
from steplog.engine.errors import DefinitionError, SecretsClosed, ValueRefused
from steplog.engine.jobs import run_blocking
from steplog.engine.secret_values import holds_secrets
from steplog.engine.values import dump, load
from steplog.engine.vault import Vault, new_vault
from steplog.eventstore.codec import encode
from steplog.eventstore.errors import KeyConflict, PayloadRefused
from steplog.eventstore.events import JobCreated
from steplog.eventstore.sealed import SEALED, Sealed, hidden, is_sealed
from steplog.eventstore.store import Store
from steplog.testing import step as lone_step
from steplog.testing.memory import MemoryStore

JOB = "01a21be4-9fa4-798d-b8a2-b01ef1ca5584"


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Vault:
    """The vault of a job that nobody stores."""
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    return new_vault(JOB)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPLOG_KEYS", raising=False)


@dataclass
class Account:
    name: str
    key: SecretStr


class Pair(NamedTuple):
    name: str
    key: SecretStr


class Typed(TypedDict):
    key: SecretStr


class Careless(BaseModel):
    key: SecretStr

    @field_serializer("key")
    def in_clear(self, value: SecretStr) -> str:
        return value.get_secret_value()


class May(Context):
    token: SecretStr | None = None
    count: int = 0


class Tree(BaseModel):
    children: list[Tree] = []
    leaf: SecretStr | None = None


class Fussy(BaseModel):
    """Takes what it is given in Python, and refuses what it reads."""

    key: SecretStr

    @model_validator(mode="before")
    @classmethod
    def refuse_text(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value["key"], str):
            raise ValueError(f"no text: {value['key']}")
        return value


class Hashed(BaseModel):
    keys: frozenset[SecretStr]

    @field_serializer("keys")
    def in_clear(self, values: frozenset[SecretStr]) -> list[str]:
        return [value.get_secret_value() for value in values]


# --- sealed, and refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (SecretStr, SecretStr("hunter2!")),
        (SecretStr, SecretStr("")),
        (SecretStr | None, None),
        (SecretBytes, SecretBytes("schlüssel".encode())),
        (list[SecretStr], [SecretStr("a-secret"), SecretStr("b-secret")]),
        (tuple[SecretStr, int], (SecretStr("a-secret"), 1)),
        (dict[int, SecretStr], {1: SecretStr("a-secret")}),
        (Login, Login(user="anna", password=SecretStr("hunter2!"))),
        (list[Login | int], [1, Login(user="anna", password=SecretStr("hunter2!"))]),
        (Account, Account("anna", SecretStr("hunter2!"))),
        (Pair, Pair("anna", SecretStr("hunter2!"))),
        (Typed, Typed(key=SecretStr("hunter2!"))),
        (Careless, Careless(key=SecretStr("hunter2!"))),
    ],
    ids=repr,
)
def test_value_with_secrets_is_sealed_and_comes_back(annotation: Any, value: Any, vault: Vault) -> None:
    sealed = dump(value, annotation, "input", vault)
    assert b"secret" not in encode([sealed])
    assert b"hunter2" not in encode([sealed])
    assert load(sealed, annotation, vault) == value
    if value is not None:
        with pytest.raises(SecretsClosed):
            load(sealed, annotation)
        with pytest.raises(PayloadRefused, match="STEPLOG_KEYS"):
            dump(value, annotation, "input")


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    [
        (SecretBytes, SecretBytes(b"\xff\xfe"), "base64"),
        (frozenset[SecretStr], frozenset([SecretStr("a-secret")]), "come back"),
        (Hashed, Hashed(keys=frozenset([SecretStr("a-secret")])), "place"),
        (dict[str, Any], {"a": SecretStr("a-secret")}, "plain"),
        (Fussy, Fussy(key=SecretStr("a-secret")), "read back"),
        (SecretStr, SecretStr("nul \x00"), "NUL"),
        (Any, {"a": {SEALED: "x"}}, "no key of other objects"),
        (dict[str, Any], {SEALED: "x"}, "no key of other objects"),
        (dict[str, dict[str, SecretStr]], {"a": {SEALED: SecretStr("a-secret")}}, "no key of other objects"),
    ],
    ids=repr,
)
def test_what_cannot_be_sealed_or_told_apart_is_refused(annotation: Any, value: Any, why: str, vault: Vault) -> None:
    with pytest.raises(PayloadRefused, match=why) as refused:
        dump(value, annotation, "input", vault)
    assert refused.value.path.startswith("input")
    assert "a-secret" not in "".join(traceback.format_exception(refused.value))


def test_same_value_is_the_same_in_one_job_and_another_in_others(vault: Vault) -> None:
    first, again, other = (dump(SecretStr(text), SecretStr, "x", vault) for text in ("one", "one", "two"))
    elsewhere = dump(SecretStr("one"), SecretStr, "x", new_vault("01a21be4-9fa4-798d-b8a2-b01ef1ca5585"))
    assert first == again
    assert first not in (other, elsewhere)


def test_sealed_value_that_was_touched_is_not_opened(vault: Vault) -> None:
    sealed = dump(SecretStr("hunter2!"), SecretStr, "x", vault)[SEALED]
    job_id, ciphertext = Sealed.of(sealed)
    wrong = [ciphertext[:-4], "A" + ciphertext[1:] if ciphertext[0] != "A" else "B" + ciphertext[1:], "", "é"]
    for each in wrong:
        with pytest.raises(SecretsClosed, match="does not fit"):
            vault.open(Sealed(job_id, each))


def test_types_are_known_by_the_secrets_they_declare() -> None:
    assert all(map(holds_secrets, (SecretStr, Order, Kept, Account, Pair, Typed, list[Login], Login | None, Tree)))
    assert not any(map(holds_secrets, (str, Context, list[dict[str, int]], Any, None, int | str)))


def test_value_with_a_known_secret_in_plain_is_refused(vault: Vault) -> None:
    dump(secret("token"), SecretStr, "x", vault)
    token = secret("token").get_secret_value()
    for value in (token, f"Bearer {token}", [1, {"a": token}], {token: 1}):
        with pytest.raises(PayloadRefused, match="in plain"):
            dump(value, Any, "result", vault)
    assert dump("another", Any, "result", vault) == "another"


def test_secrets_too_short_to_be_told_from_words_stand_in_nobodys_way(vault: Vault) -> None:
    dump(SecretStr("shop"), SecretStr, "x", vault)
    assert dump({"shop": "a shop"}, Any, "result", vault) == {"shop": "a shop"}


def test_what_people_see_of_sealed_values_is_stars() -> None:
    document = {"a": Sealed(JOB, "x").document, "b": [Sealed(JOB, "y").document, 1]}
    assert hidden(document) == {"a": "********", "b": ["********", 1]}
    assert hidden({**document, "erased": True})["a"] == "(erased)"
    assert hidden(plain := {"a": [1]}) is plain
    assert not is_sealed({SEALED: "x", "b": 1})


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_submitting_without_keys_is_refused_before_anything_is_written(store: Store) -> None:
    for submitting in (lambda: pay.submit(Order(), store=store), lambda: pay.run(Order(), store=store)):
        with pytest.raises(PayloadRefused, match=r"input\.token: .*STEPLOG_KEYS"):
            submitting()
    assert store.inspection.job_ids() == []


def test_workflow_that_may_have_secrets_runs_without_keys_as_long_as_it_has_none(store: Store) -> None:
    wf = Workflow("may", context=May)

    @wf.sub_step
    def counts(step: Step[Any, May]) -> None:
        step.context.count = 1

    @wf.sub_step(after=[counts])
    def keeps(step: Step[Any, May]) -> None:
        step.context.token = SecretStr("hunter2!")

    job = wf.run(store=store)
    assert job.context.count == 1
    assert job.status == "failed"
    assert "STEPLOG_KEYS" in str(job.snapshot["error"])


def test_worker_without_the_keys_leaves_the_job_to_others(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from steplog import run_worker

    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    job_id = pay.submit(Order(), store=store)
    monkeypatch.setenv("STEPLOG_KEYS", OTHER_KEYS)
    run_worker(pay, store=store, one_shot=True)
    assert store.head(job_id).columns.status == "queued"
    assert "key k1, which is not here" in caplog.text
    monkeypatch.setenv("STEPLOG_KEYS", f"{OTHER_KEYS},{KEYS}")
    run_worker(pay, store=store, one_shot=True)
    assert store.head(job_id).columns.status == "failed"  # at the sub-step that wants a person


def test_same_key_and_input_is_the_same_job_whatever_was_rotated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    job_id = pay.submit(Order(), store=store, key="r42")
    assert pay.submit(Order(), store=store, key="r42") == job_id
    monkeypatch.setenv("STEPLOG_KEYS", f"{OTHER_KEYS},{KEYS}")
    assert pay.submit(Order(), store=store, key="r42") == job_id
    assert pay.run(Order(), store=store, key="r42").job_id == job_id
    (again, other) = pay.submit_many([Order(token=secret("pin")), Order()], batch="b", store=store).job_ids
    assert pay.submit_many([Order(token=secret("pin")), Order()], batch="b", store=store).job_ids == [again, other]
    for submitting in (
        lambda: pay.submit(Order(token=secret("pin")), store=store, key="r42"),
        lambda: pay.run(Order(token=secret("pin")), store=store, key="r42"),
        lambda: pay.submit_many([Order(), Order()], batch="b", store=store),
    ):
        with pytest.raises(KeyConflict):
            submitting()


def test_job_inside_the_callers_transaction_brings_its_key(
    postgres_store: Any, postgres_dsn: str, postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    with psycopg.connect(postgres_dsn) as connection:
        job_id = pay.submit(Order(), connection=connection, schema=postgres_schema)
        connection.rollback()
        assert postgres_store.data_keys.find(job_id) is None
        job_id = pay.submit(Order(), connection=connection, schema=postgres_schema)
    assert postgres_store.data_keys.find(job_id).wrapped.startswith("k1:")
    job_id = pay.submit(Order(), store=postgres_store, key="r42")
    with psycopg.connect(postgres_dsn) as connection:
        assert pay.submit(Order(), connection=connection, schema=postgres_schema, key="r42") == job_id
        with pytest.raises(KeyConflict):
            pay.submit(Order(token=secret("pin")), connection=connection, schema=postgres_schema, key="r42")

    async def again() -> str:
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
            return await pay.asubmit(Order(), connection=connection, schema=postgres_schema, key="r42")

    assert asyncio.run(again()) == job_id


def test_equal_secret_is_no_write_and_another_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    store, wf = MemoryStore(), Workflow("writes", context=Kept)

    @wf.sub_step
    def writes(step: Step[Any, Kept]) -> None:
        step.context.card = secret("card")
        step.context.from_the_start = secret("context from the start")

    @wf.sub_step(after=[writes])
    def writes_the_same(step: Step[Any, Kept]) -> None:
        step.context.card = secret("card")

    job_id = wf.run(store=store).job_id
    changed = [event.data["set"] for event in store.read(job_id) if event.type == "ContextChanged"]
    assert [list(each) for each in changed] == [["card"]]


def test_default_of_the_context_is_sealed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    store = MemoryStore()
    (created,) = store.read(pay.submit(Order(), store=store))
    assert created.type == JobCreated.type()
    assert is_sealed(created.data["context"]["from_the_start"])


def test_results_and_context_are_opened_for_the_program_that_ran_the_job(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    job = run_blocking(pay, Order(), store=store, key="r42")
    card = job.context.card
    assert card == secret("card")
    again = run_blocking(pay, Order(), store=store, key="r42")
    assert again.context.card == secret("card")


def test_handler_in_a_process_of_its_own_is_given_secrets_and_tells_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    job = apart.run(Login(user="anna", password=secret("password")), store=store)
    assert (job.status, job.result(works), job.context.card) == ("completed", secret("password"), secret("card"))
    assert job.warnings == ["main/tells failed: no ********"]
    log = str(list(store.read(job.job_id)))
    assert "as ********" in log
    assert secret("password").get_secret_value() not in log


def test_a_payload_of_a_signal_can_have_no_secrets() -> None:
    wf = Workflow("waits")
    with pytest.raises(DefinitionError, match="no secrets"):
        wf.wait_for_signal("go", Login)


def test_by_hand_without_the_code_nothing_is_written_into_a_job_with_secrets(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steplog.engine import operators

    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    job_id = run_blocking(pay, Order(), store=store).job_id
    edits: list[Callable[[], object]] = [
        lambda: operators.set_context(store, job_id, {"card": "in plain"}, by="anna"),
        lambda: operators.edit_input(store, job_id, {"token": "in plain"}, by="anna"),
        lambda: operators.complete(store, job_id, "stop", "in plain", by="anna"),
    ]
    for by_hand in edits:
        with pytest.raises(ValueRefused, match="name the module"):
            by_hand()
    with pytest.raises(PayloadRefused, match="no key of other"):
        operators.signal(store, job_id, "go", {SEALED: "x"}, by="anna")


def test_handler_is_called_with_secrets_without_an_engine_and_without_keys() -> None:
    wf = Workflow("alone", input=Order)

    @wf.sub_step
    def tells(step: Step[Order]) -> str:
        return step.input.token.get_secret_value()

    assert tells(lone_step(wf, Order())) == secret("token").get_secret_value()


async def _crash_safe(kit: Any) -> None:
    wf = Workflow("crash", input=Login, context=Kept)

    @wf.sub_step
    def one(step: Step[Login, Kept]) -> SecretStr:
        step.context.card = step.input.password
        return SecretStr("session-of-anna")

    @wf.sub_step
    def two(step: Step[Login, Kept], session: SecretStr = result(one)) -> SecretStr:
        assert session.get_secret_value() == "session-of-anna"
        return cast("SecretStr", step.context.card)

    job = await kit.assert_crash_safe(wf, Login(user="anna", password=SecretStr("hunter2!")))
    assert job.result(two) == SecretStr("hunter2!")


def test_workflow_with_secrets_is_crash_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    from steplog.testing.kit import Kit

    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    asyncio.run(_crash_safe(Kit()))


def test_without_the_extra_everything_but_secrets_works(tmp_path: Any) -> None:
    program = """
import sys
sys.modules["cryptography"] = None
from pydantic import BaseModel, SecretStr
import steplog.cli
from steplog import Workflow
from steplog.eventstore.errors import PayloadRefused
hello = Workflow("hello")
@hello.sub_step
def greet() -> str:
    return "hello"
print(hello.run(store="sqlite:///a.db").result(greet))
class Login(BaseModel):
    password: SecretStr
login = Workflow("login", input=Login)
try:
    login.run(Login(password=SecretStr("hunter2!")), store="sqlite:///a.db")
except PayloadRefused as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("hello\ninput.password: ")
    assert "steplog[secrets]" in ran.stdout
