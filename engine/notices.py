"""Being told: what became of jobs, to functions and to webhooks, from the feed; no job waits for it.

Each target has its own place in the feed, kept in the store, and one process at a time tells it. What cannot be
delivered is tried again, later and later, before anything behind it: each notice arrives at least once, in the feed's
order. Who must not act twice goes by `Notice.event_id`.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Literal

import orjson

from steplog.engine.config import ConfigError
from steplog.eventstore.clock import SystemClock, later
from steplog.eventstore.errors import FeedMoved, LogError, StoreError
from steplog.eventstore.feed import FeedEntry
from steplog.eventstore.projected import Change, Checkpoint, Move
from steplog.eventstore.store import Store

logger = logging.getLogger("steplog.engine")

Kind = Literal["completed", "failed", "parked", "paused", "cancelled", "waiting"]
"""What happened: the job ended or stopped, or something of it waits for a signal."""

_KINDS: dict[str, Kind] = {
    "JobCompleted": "completed",
    "JobFailed": "failed",
    "JobParked": "parked",
    "JobPaused": "paused",
    "JobCancelled": "cancelled",
    "SubStepWaiting": "waiting",
}
KINDS = tuple(_KINDS.values())
UNASKED: tuple[Kind, ...] = ("completed", "failed", "parked", "waiting")
"""What a target is told of unless it says."""

PAGE_ENTRIES = 100
POLL_S = 1.0
LEASE_S = 60.0
AGAIN_S_MIN, AGAIN_S_MAX = 1.0, 300.0
POST_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Notice:
    """That something became of a job. The event's id tells one notice from another."""

    kind: Kind
    job_id: str
    version: int
    event_id: str
    at: str
    workflow: str
    key: str | None
    tags: dict[str, str]
    data: dict[str, Any]
    """What the event says: the error of a failure, the reason of a park, the signal that is waited for."""


@dataclass(frozen=True)
class Target:
    """Whom to tell, and of what. `name` is what its place in the feed is kept under: it must not change."""

    name: str
    tell: Callable[[Notice], None]
    """Whatever it raises, it is called again with the same notice, later."""
    kinds: Sequence[Kind] = UNASKED


def webhook(name: str, url: str, secret: str, kinds: Sequence[Kind] = UNASKED) -> Target:
    """A target that gets each notice as a POST of JSON, signed.

    `Steplog-Signature: t=SECONDS,v1=HEX` is the HMAC-SHA256 of `SECONDS.BODY` under the secret; `Steplog-Event-Id` is
    the same whenever a notice is sent again. Any answer but 2xx, a redirect too, is a failure.
    """
    return Target(name, _Webhook(url, secret), kinds)


def configured_targets(tables: Sequence[Any], environment: Mapping[str, str]) -> list[Target]:
    """The webhooks of the tables `[[notify]]` in steplog.toml: `url`, `secret_env`, and if need be `name` and `on`.

    The secret itself stands in the environment. Raises ConfigError.
    """
    return [_configured(table, environment) for table in tables]


def _configured(table: Any, environment: Mapping[str, str]) -> Target:
    known = {"name", "url", "secret_env", "on"}
    if not isinstance(table, dict) or not {"url", "secret_env"} <= table.keys() <= known:
        raise ConfigError("[[notify]] has url and secret_env, and may have name and on")
    url, on = str(table["url"]), table.get("on", UNASKED)
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"[[notify]]: {url!r} is no address of a web server")
    if not isinstance(on, Sequence) or not set(on) <= set(KINDS):
        raise ConfigError(f"[[notify]]: on names some of {', '.join(KINDS)}")
    secret = environment.get(str(table["secret_env"]))
    if not secret:
        raise ConfigError(f"[[notify]]: the environment has no secret {table['secret_env']}")
    return webhook(str(table.get("name", url)), url, secret, list(on))


def signature(secret: str, seconds: int, body: bytes) -> str:
    """What the header says of a body sent at that time."""
    digest = hmac.new(secret.encode(), b"%d." % seconds + body, sha256).hexdigest()
    return f"t={seconds},v1={digest}"


class _Webhook:
    """Posts notices to one address."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self._opener = urllib.request.build_opener(_NoRedirects)

    def __call__(self, notice: Notice) -> None:
        body = orjson.dumps(asdict(notice))
        headers = {
            "Content-Type": "application/json",
            "Steplog-Event-Id": notice.event_id,
            "Steplog-Signature": signature(self._secret, int(time.time()), body),
        }
        request = urllib.request.Request(self._url, body, headers, method="POST")
        with self._opener.open(request, timeout=POST_S_MAX):
            pass


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Where notices go is said by the configuration alone, not by who answers."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


@dataclass
class _Place:
    """How far a target was told, and how patient we are with it."""

    target: Target
    failures: int = 0
    not_before: float = 0.0
    told: set[str] = field(default_factory=set)
    """Notices of the present page that have arrived."""


class Notifier:
    """Tells targets what became of jobs. Any number of processes may have one: one of them takes care of a target."""

    def __init__(self, store: Store, targets: Sequence[Target]) -> None:
        self._store = store
        self._holder = SystemClock().new_id()
        self._places = [_Place(target) for target in targets]

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set, in a thread of its own."""
        while not stop.is_set():
            moved = False
            for place in self._places:
                moved = self._turn(place) or moved
            if not moved:
                stop.wait(POLL_S)

    def _turn(self, place: _Place) -> bool:
        if time.monotonic() < place.not_before:
            return False
        try:
            return self.advance(place)
        except StoreError as error:
            logger.info("%s cannot be told now: %s", place.target.name, error)
        except Exception as error:
            place.failures += 1
            wait_s = min(AGAIN_S_MAX, AGAIN_S_MIN * 2.0 ** min(place.failures - 1, 32))
            place.not_before = time.monotonic() + wait_s
            logger.warning("%s was not told, again in %.0f s: %s", place.target.name, wait_s, error)
        return False

    def advance(self, place: _Place) -> bool:
        """Tell of the next page of the feed; whether there was one. Raises what the target raises."""
        held = self._hold(place.target)
        if held is None:
            return False
        try:
            page = self._store.feed(held["cursor"], PAGE_ENTRIES)
        except FeedMoved:
            logger.error("the log is another one: %s is told of what comes from now on", place.target.name)
            self._move(place.target, held, {**held, "cursor": self._store.feed_end()})
            return True
        for entry in page.entries:
            if _KINDS.get(entry.type) in place.target.kinds:
                self._tell(place, entry)
        if page.entries:
            self._move(place.target, held, {**held, "cursor": page.cursor, "until": self._until()})
            place.told.clear()
        return bool(page.entries)

    def _tell(self, place: _Place, entry: FeedEntry) -> None:
        notice = self._notice(entry)
        if notice is not None and notice.event_id not in place.told:
            place.target.tell(notice)
            place.told.add(notice.event_id)
            place.failures = 0

    def _notice(self, entry: FeedEntry) -> Notice | None:
        """None where nobody has to be told: what waits is a timer, or the log cannot be read."""
        try:
            (event,) = self._store.read(entry.job_id, entry.version - 1, entry.version)
        except LogError as error:
            logger.error("nobody can be told of an event: %s", error)
            return None
        if event.type == "SubStepWaiting" and event.data.get("kind") != "signal":
            return None
        columns = self._store.head(entry.job_id).columns
        return Notice(
            _KINDS[event.type], event.job_id, event.version, event.event_id, event.recorded_at,
            columns.workflow, columns.key, columns.tags, event.data,
        )  # fmt: skip

    # --- whose turn it is --------------------------------------------------------------------------------------------

    def _hold(self, target: Target) -> Checkpoint | None:
        """The target's place in the feed, where it is ours to tell it; a new target begins with what comes from now."""
        now = self._store.now()
        known = self._store.projected.checkpoints().get(_name(target))
        if known is not None and known["holder"] == self._holder and known["until"] > later(now, LEASE_S / 2):
            return known
        if known is not None and known["holder"] != self._holder and known["until"] > now:
            return None
        cursor = self._store.feed_end() if known is None else known["cursor"]
        held = {"cursor": cursor, "holder": self._holder, "until": self._until()}
        return held if self._move(target, known, held) else None

    def _until(self) -> str:
        return later(self._store.now(), LEASE_S)

    def _move(self, target: Target, before: Checkpoint | None, after: Checkpoint) -> bool:
        name = _name(target)
        return self._store.projected.store(Change(name, [Move(name, before, after)]))


def _name(target: Target) -> str:
    return f"notices/{target.name}"
