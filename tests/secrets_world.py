"""A workflow with a secret of its own for each place that may tell one, and keys to seal them with."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from steplog import Context, Fatal, Job, Retry, Skip, Step, Transaction, Workflow, result
from steplog.eventstore.limits import ERROR_MESSAGE_CHARS_MAX

KEYS = "k1:" + "A" * 43
OTHER_KEYS = "k2:" + "B" * 42 + "A"


def canary(place: str) -> str:
    """A text that stands in nothing else, and has no part in common with another one."""
    return f"{sha256(place.encode()).hexdigest()[:16]}/{place.replace(' ', '-')[:10]}"


TOLD = [
    "message", "cause of an error", "traceback", "error in repr", "error in json", "error in a url", "cut message",
    "error over the limit", "refused by pydantic", "logged", "logged twice", "note", "skipped because",
    "raised by a condition", "skipped by a condition", "raised by a listing", "raised by an item", "raised by undoing",
    "returned in plain", "cursor in plain", "context in plain", "raised by a transaction", "name of an error",
]  # fmt: skip
"""Secrets of the input that handlers try to tell."""
HELD = [
    "token", "pin", "first of a list", "second of a list", "password", "spare", "context from the start", "card",
    "card of a checkpoint", "first card", "second card", "password in the context", "result", "result in a model",
    "result of item a", "result of item b", "item a", "item b", "raised before it was kept",
]  # fmt: skip
"""Secrets that are kept where their types say so."""
BY_HAND = ["set by hand", "given by hand", "completed by hand", "set in a fork"]
CANARIES = {place: canary(place) for place in (*TOLD, *HELD, *BY_HAND)}
PEM = f"-----BEGIN-----\n{CANARIES['error in repr']}\n{canary('second line')}\n-----END-----"

seen: list[str] = []
"""What handlers were given in clear."""


def secret(place: str) -> SecretStr:
    return SecretStr(CANARIES[place])


class Login(BaseModel, frozen=True):
    user: str
    password: SecretStr


class Order(BaseModel, frozen=True):
    shop: str = "r42"
    token: SecretStr = secret("token")
    pin: SecretBytes = SecretBytes(CANARIES["pin"].encode())
    keys: list[SecretStr] = [secret("first of a list"), secret("second of a list")]
    login: Login = Login(user="anna", password=secret("password"))
    spare: SecretStr | None = secret("spare")
    pem: SecretStr = SecretStr(PEM)
    told: dict[str, SecretStr] = {place: secret(place) for place in TOLD}


class Kept(Context):
    from_the_start: SecretStr = secret("context from the start")
    card: SecretStr | None = None
    cards: list[SecretStr] = []
    login: Login | None = None
    note: str = ""


Working = Step[Order, Kept]
pay: Workflow[Order, Kept] = Workflow("pay", input=Order, context=Kept, compensate_on=["cancelled"])
begin = pay.phase("begin")
tell = pay.phase("tell")
last = pay.phase("last")


def told(step: Working, place: str) -> str:
    return step.input.told[place].get_secret_value()


@begin.sub_step
def login(step: Working) -> SecretStr:
    order = step.input
    given = [order.token, *order.keys, order.login.password, step.context.from_the_start, order.pem]
    seen.extend([each.get_secret_value() for each in given])
    seen.append(order.pin.get_secret_value().decode())
    step.log(f"logging in with {told(step, 'logged')}", told(step, "logged twice") * 2)
    step.progress(1, 2, f"as {told(step, 'note')}")
    return secret("result")


@begin.compensate(login, retry=1)
def log_out(step: Working) -> None:
    raise Fatal(told(step, "raised by undoing"))


@begin.sub_step(retry=Retry(attempts=2, wait="10ms"))
def keep(step: Working) -> Login:
    step.context.card = secret("card of a checkpoint")
    step.checkpoint({"page": step.attempt})
    if step.attempt == 1:
        step.context.card = secret("raised before it was kept")
        raise ConnectionError(f"no connection with {CANARIES['raised before it was kept']}")
    step.context.card = secret("card")
    step.context.cards = [secret("first card"), secret("second card")]
    step.context.login = Login(user="anna", password=secret("password in the context"))
    return Login(user="anna", password=secret("result in a model"))


@begin.map(
    items=[Login(user="a", password=secret("item a")), Login(user="b", password=secret("item b"))],
    key=lambda item: item.user,
)
def each(item: Login, step: Working) -> SecretStr:
    seen.append(item.password.get_secret_value())
    if item.user == "b" and step.attempt == 1 and not step.context.note:
        step.log(told(step, "raised by an item"))
    return secret(f"result of item {item.user}")


def leaking(place: str) -> Callable[[Callable[..., Any]], Any]:
    """An optional sub-step that is named after the secret it tells."""
    return tell.sub_step(name=place.replace(" ", "_"), optional=True)


@leaking("message")
def message(step: Working) -> None:
    raise ValueError(f"refused: {told(step, 'message')}")


@leaking("cause of an error")
def cause(step: Working) -> None:
    try:
        raise KeyError(told(step, "cause of an error"))
    except KeyError as error:
        raise RuntimeError("no") from error


@leaking("traceback")
def trace(step: Working) -> None:
    error = RuntimeError("no")
    error.add_note(f"while it had {told(step, 'traceback')}")
    raise error


@leaking("error in repr")
def in_repr(step: Working) -> None:
    raise RuntimeError(repr({"key": step.input.pem.get_secret_value()}))


@leaking("error in json")
def in_json(step: Working) -> None:
    import json

    raise RuntimeError(json.dumps({"Größe": told(step, "error in json"), "pem": step.input.pem.get_secret_value()}))


@leaking("error in a url")
def in_url(step: Working) -> None:
    from urllib.parse import quote

    raise RuntimeError(f"GET https://x/?t={quote(told(step, 'error in a url'), safe='')}")


@leaking("cut message")
def cut(step: Working) -> None:
    raise RuntimeError(f"it began with {told(step, 'cut message')[:-5]}…")


@leaking("error over the limit")
def over_the_limit(step: Working) -> None:
    raise RuntimeError("x" * (ERROR_MESSAGE_CHARS_MAX - 15) + told(step, "error over the limit"))


@leaking("refused by pydantic")
def by_pydantic(step: Working) -> None:
    Login.model_validate({"user": {"nested": told(step, "refused by pydantic")}})


@leaking("name of an error")
def by_name(step: Working) -> None:
    raise type(told(step, "name of an error"), (Exception,), {})()


@leaking("skipped because")
def because(step: Working) -> None:
    raise Skip(f"no {told(step, 'skipped because')}")


@leaking("returned in plain")
def in_plain(step: Working) -> list[str]:
    return [told(step, "returned in plain")]


@leaking("cursor in plain")
def as_cursor(step: Working) -> None:
    step.checkpoint({"at": told(step, "cursor in plain")})


@leaking("context in plain")
def as_note(step: Working) -> None:
    step.context.note = told(step, "context in plain")


@leaking("raised by a transaction")
def in_transaction(step: Working, tx: Transaction) -> None:
    tx.execute("select 1")
    raise ValueError(told(step, "raised by a transaction"))


def _raise(job: Job[Order, Kept]) -> bool:
    raise ValueError(job.input.told["raised by a condition"].get_secret_value())


@tell.sub_step(optional=True, when=_raise)
def conditional() -> None: ...


@tell.sub_step(when=lambda job: Skip(job.input.told["skipped by a condition"].get_secret_value()))
def skipped() -> None: ...


def _no_items(job: Job[Order, Kept]) -> list[str]:
    raise ValueError(job.input.told["raised by a listing"].get_secret_value())


@tell.map(items=_no_items, optional=True)
def listed(item: str) -> None: ...


@last.sub_step
def use(
    step: Working,
    session: SecretStr = result(login),
    kept: Login = result(keep),
    items: list[SecretStr] = result(each),
) -> int:
    card = step.context.card
    assert card is not None
    assert step.context.login is not None
    found = [session, kept.password, *items, card, *step.context.cards, step.context.login.password]
    seen.extend(each.get_secret_value() for each in found)
    return len(found)


@last.sub_step(after=[use])
def stop(step: Working) -> None:
    assert step.context.login is not None
    seen.append(step.context.login.password.get_secret_value())
    raise Fatal("a person has to look")


short: Workflow[Login, Context] = Workflow("short", input=Login)


@short.sub_step
def echo(step: Step[Login]) -> SecretStr:
    return step.input.password


apart: Workflow[Login, Kept] = Workflow("apart", input=Login, context=Kept)


@apart.sub_step(isolate="process")
def works(step: Step[Login, Kept]) -> SecretStr:
    step.log(f"as {step.input.password.get_secret_value()}")
    step.context.card = secret("card")
    return step.input.password


@apart.sub_step(isolate="process", after=[works], optional=True)
def tells(step: Step[Login, Kept], given: SecretStr = result(works)) -> None:
    assert step.context.card == secret("card")
    raise ValueError(f"no {given.get_secret_value()}")
