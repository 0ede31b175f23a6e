"""Bearer tokens and what each may do; the cookie that a browser gets for one. Compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, cast, get_args

from steplog.eventstore.errors import SteplogError

Scope = Literal["read", "operate", "ingest"]
"""Look at everything; that, and submit and change jobs; append to recorded jobs and nothing else."""

SECRET_CHARS_MIN = 16
COOKIE = "steplog"
COOKIE_SECONDS = 12 * 3600

_IMPLIED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "operate": frozenset({"read", "operate"}),
    "ingest": frozenset({"ingest"}),
}
EVERYTHING: frozenset[Scope] = frozenset({"read", "operate", "ingest"})


class TokenRefused(SteplogError, ValueError):
    """A token is not written as one."""


@dataclass(frozen=True, slots=True)
class Token:
    """Somebody who may come in: the name goes into the log as who did it."""

    name: str
    scopes: frozenset[Scope]
    secret: str

    def __repr__(self) -> str:
        return f"<token {self.name}: {', '.join(sorted(self.scopes))}>"


def read_tokens(text: str) -> list[Token]:
    """Tokens written as `NAME=SCOPE+SCOPE:SECRET`, apart by white space. Raises TokenRefused without the secret."""
    return [_read_token(each, number) for number, each in enumerate(text.split(), start=1)]


def _read_token(text: str, number: int) -> Token:
    name, _, rest = text.partition("=")
    scopes, _, secret = rest.partition(":")
    named = scopes.split("+")
    if not name or not secret:
        raise TokenRefused(f"token {number} is not NAME=SCOPE+SCOPE:SECRET")
    if unknown := set(named) - set(get_args(Scope)):
        raise TokenRefused(f"token {name}: no scope {', '.join(sorted(unknown))!r} (read, operate, ingest)")
    if len(secret) < SECRET_CHARS_MIN:
        raise TokenRefused(f"token {name}: a secret of {len(secret)} characters is too short ({SECRET_CHARS_MIN})")
    return Token(name, _with_implied(cast("list[Scope]", named)), secret)


def _with_implied(scopes: Iterable[Scope]) -> frozenset[Scope]:
    return frozenset(implied for scope in scopes for implied in _IMPLIED[scope])


def token_of_secret(tokens: Sequence[Token], secret: str) -> Token | None:
    """The token with that secret; how long the answer takes tells nothing of any secret."""
    given = sha256(secret.encode("utf-8", "surrogateescape")).digest()
    found: Token | None = None
    for token in tokens:
        if hmac.compare_digest(sha256(token.secret.encode()).digest(), given):
            found = token
    return found


def cookie_of(token: Token, now_s: float) -> str:
    """What a browser shows instead of the token: who it is, until when, signed with the token's secret."""
    until = int(now_s) + COOKIE_SECONDS
    return f"{token.name.encode().hex()}.{until}.{_signature(token, until)}"


def token_of_cookie(tokens: Sequence[Token], cookie: str, now_s: float) -> Token | None:
    """The token that the cookie was made for, unless it is over or was not made by us."""
    name, _, rest = cookie.partition(".")
    until, _, signature = rest.partition(".")
    if not (until.isascii() and until.isdigit() and len(until) < 15) or int(until) < now_s:
        return None
    for token in tokens:
        if token.name.encode().hex() == name:
            given = signature.encode("utf-8", "surrogateescape")
            return token if hmac.compare_digest(_signature(token, int(until)).encode(), given) else None
    return None


def _signature(token: Token, until: int) -> str:
    return hmac.new(token.secret.encode(), f"steplog cookie {token.name} {until}".encode(), sha256).hexdigest()
