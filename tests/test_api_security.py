"""Who comes in, to what, from where, with how much: every route with every kind of token, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_world import HERE, SECRETS, TOKENS, World
from fastapi.routing import APIRoute

from steplog.api.guard import scope_needed
from steplog.api.server import AddressRefused, refuse_open_door
from steplog.api.settings import ApiSettings
from steplog.api.tokens import TokenRefused, cookie_of, read_tokens, token_of_cookie

PUBLIC = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/login"), ("POST", "/login"), ("GET", "/static/{name}")}
INGESTS = {("POST", "/api/v1/jobs/{job_id}/events")}
SUBMITS = {("POST", "/api/v1/workflows/{name:path}/jobs")}
FREED = {("POST", "/logout")}
"""Routes that change nothing a reader may not change."""

ADMITTED: dict[str, set[str | None]] = {
    "read": {"reader", "anna"},
    "operate": {"anna"},
    "submit": {"anna", "node"},
    "ingest": {"node"},
    "nothing": {None, "wrong-secret-0123456789", "reader", "anna", "node"},
}
EVERYBODY: list[str | None] = [None, "wrong-secret-0123456789", "reader", "anna", "node"]


def routes_of(routes: Any) -> list[tuple[str, str]]:
    """Every method and path of the app, however deep its routers lie."""
    found: list[tuple[str, str]] = []
    for route in routes:
        if isinstance(route, APIRoute):
            found += [(method, route.path) for method in sorted(route.methods or ())]
        elif inner := getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        ):
            found += routes_of(inner)
        elif methods := getattr(route, "methods", None):
            found += [(method, route.path) for method in sorted(methods - {"HEAD"})]
    return found


def kind_of(method: str, path: str) -> str:
    """What a route is, told from its place in the table and not by the guard."""
    if (method, path) in PUBLIC:
        return "nothing"
    if (method, path) in INGESTS:
        return "ingest"
    if (method, path) in SUBMITS:
        return "submit"
    return "read" if method == "GET" or (method, path) in FREED else "operate"


@pytest.fixture(scope="module")
def guarded() -> World:
    return World(tokens=TOKENS)


ROUTES = routes_of(World().app.routes)


def test_the_table_of_routes_is_whole() -> None:
    paths = {path for _, path in ROUTES}
    assert {"/api/v1/jobs/{job_id}", "/healthz", "/jobs/{job_id}", "/openapi.json", "/metrics"} <= paths
    assert len(ROUTES) > 45
    assert set(ROUTES) >= PUBLIC | INGESTS | SUBMITS | FREED


@pytest.mark.parametrize("who", EVERYBODY, ids=str)
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=str)
def test_each_route_lets_in_whom_it_should_and_nobody_else(
    guarded: World, method: str, path: str, who: str | None
) -> None:
    asked = re.sub(r"{[a-z_]+(:path)?}", "nothing", path) + ("?after=nothing" if path.endswith("/stream") else "")
    headers = {"Authorization": f"Bearer {SECRETS.get(who, who)}"} if who else {}
    answer = guarded.as_token(None).request(method, asked, headers=headers)
    if who in ADMITTED[kind_of(method, path)]:
        assert answer.status_code not in (401, 403) or path == "/login"
    else:
        assert answer.status_code == (401 if who not in SECRETS else 403)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "NONSENSE"])
@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/api/v1/nothing", "/healthz/../api/v1/jobs", "/static/../jobs", "//"]
)
def test_what_is_in_no_table_needs_a_scope(method: str, path: str) -> None:
    assert scope_needed(method, path)


def test_a_wrong_token_lets_nobody_in_where_none_is_needed() -> None:
    answer = World().as_token("wrong-secret-0123456789").get("/api/v1/jobs")
    assert answer.status_code == 401


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic abc", "bearer  x", f"Token {SECRETS['anna']}", "\x80"])
def test_a_header_that_is_no_token_lets_nobody_in(guarded: World, header: str) -> None:
    headers = [(b"authorization", header.encode("latin-1"))]
    assert guarded.as_token(None).get("/api/v1/jobs", headers=headers).status_code == 401


def test_who_did_it_is_the_tokens_name() -> None:
    world = World(tokens=TOKENS)
    job_id = world.job()
    world.as_token("anna").post(f"/api/v1/jobs/{job_id}/cancel")
    assert list(world.store.read(job_id))[-1].data["by"] == "anna"


def test_a_read_only_server_changes_nothing() -> None:
    world = World(read_only=True)
    job_id = world.job()
    answer = world.client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:steplog:problem:read-only")
    assert world.client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "failed"


# --- cookies ---------------------------------------------------------------------------------------------------------


def test_a_browser_comes_in_by_a_cookie_that_scripts_and_other_sites_do_not_get(guarded: World) -> None:
    browser = guarded.as_token(None)
    page = browser.get("/jobs", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    cookie = browser.post("/login", data={"token": SECRETS["reader"]}).headers["set-cookie"]
    assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.lower().replace("; ", ";").split(";"))
    assert SECRETS["reader"] not in cookie
    assert browser.get("/jobs").status_code == 200
    assert browser.post("/jobs/nothing/do/cancel").status_code == 403
    browser.post("/logout")
    assert browser.get("/jobs").status_code == 401


@pytest.mark.parametrize("token", ["wrong-secret-0123456789", "", SECRETS["node"]])
def test_a_token_that_may_not_read_gets_no_cookie(guarded: World, token: str) -> None:
    answer = guarded.as_token(None).post("/login", data={"token": token})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_cookie_holds_for_its_token_and_its_time_alone() -> None:
    reader, anna, _ = TOKENS
    cookie = cookie_of(reader, 1000.0)
    assert token_of_cookie(TOKENS, cookie, 1001.0) == reader
    name, until, signature = cookie.split(".")
    forged = [
        f"{anna.name.encode().hex()}.{until}.{signature}",
        f"{name}.{int(until) + 1}.{signature}",
        f"{name}.{until}.{signature[:-1]}0",
        f"{name}.{until}.",
        "..",
        "",
        "é.é.é",
    ]
    assert [token_of_cookie(TOKENS, each, 1001.0) for each in forged] == [None] * len(forged)
    assert token_of_cookie(TOKENS, cookie, 1000.0 + 13 * 3600) is None
    assert token_of_cookie([anna], cookie, 1001.0) is None


# --- other sites -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
    ],
    ids=str,
)
def test_another_sites_page_changes_nothing(headers: dict[str, str]) -> None:
    world = World()
    job_id = world.job()
    for path in (f"/api/v1/jobs/{job_id}/cancel", f"/jobs/{job_id}/do/cancel", "/login"):
        assert world.client.post(path, headers=headers).status_code == 403
    assert world.store.head(job_id).columns.status == "failed"


def test_our_own_page_changes_what_its_person_wants() -> None:
    world = World()
    job_id = world.job()
    answer = world.client.post(f"/jobs/{job_id}/do/cancel", headers={"Sec-Fetch-Site": "same-origin", "Origin": HERE})
    assert answer.status_code == 303
    assert world.store.head(job_id).columns.status == "cancelled"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::2]", "localhost.evil"])
def test_a_name_turned_to_this_address_gets_nothing(host: str) -> None:
    assert World().client.get("/api/v1/jobs", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8400", "[::1]:8400", "jobs.example"])
def test_its_own_names_are_answered(host: str) -> None:
    world = World(hosts=frozenset({"jobs.example"}))
    assert world.client.get("/api/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/jobs", "/api/v1/jobs", "/nothing", "/static/dashboard.js", "/login"])
def test_no_answer_lets_a_page_run_what_is_not_ours(path: str) -> None:
    answer = World().client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "jobs.example", ""])
def test_only_loopback_is_served_without_tokens(host: str) -> None:
    with pytest.raises(AddressRefused):
        refuse_open_door(host, ApiSettings())
    refuse_open_door(host, ApiSettings(tokens=TOKENS))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_loopback_is_served_without_tokens(host: str) -> None:
    refuse_open_door(host, ApiSettings())


@pytest.mark.parametrize(
    "text", ["x", "a=read", "a=read:short", "a=fly:long-enough-secret", "=read:long-enough-secret"]
)
def test_a_token_that_is_none_is_refused_without_its_secret(text: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        read_tokens(text)
    assert "long-enough-secret" not in str(refused.value)


def test_who_may_operate_may_read_and_a_secret_is_not_shown() -> None:
    (token,) = read_tokens("anna=operate:operate-secret-0123")
    assert token.scopes == {"read", "operate"}
    assert token.secret not in repr(token)


# --- how much --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"reason": "' + b"x" * (1 << 20) + b'"}', {}, 413),
        (b"[" * 100_000, {}, 422),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, {}, 422),
        (b'{"reason": NaN}', {}, 422),
        (b"\xff\xfe", {}, 422),
        (b'{"reason": "\\ud800"}', {}, 422),
        (gzip.compress(b"x" * 10_000_000), {"Content-Encoding": "gzip"}, 415),
    ],
    ids=["large", "deep lists", "deep objects", "NaN", "no UTF-8", "surrogate", "gzip bomb"],
)
def test_a_body_that_is_too_much_is_refused(body: bytes, headers: dict[str, str], status: int) -> None:
    world = World()
    job_id = world.job()
    sent = {"Content-Type": "application/json", **headers}
    answer = world.client.post(f"/api/v1/jobs/{job_id}/cancel", content=body, headers=sent)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert world.store.head(job_id).columns.status == "failed"


def test_a_deep_value_in_an_input_is_refused() -> None:
    world = World()
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    job_id = world.job()
    answer = world.client.post(f"/api/v1/jobs/{job_id}/signals/go", json={"payload": deep})
    assert answer.status_code == 422


def test_a_body_without_a_length_is_bounded_too() -> None:
    world = World()
    job_id = world.job()

    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    answer = world.client.post(f"/api/v1/jobs/{job_id}/cancel", content=endless())
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:steplog:problem:body-too-large")


@pytest.mark.parametrize(
    "query",
    [
        "/jobs?limit=1000000000",
        "/jobs?limit=0",
        f"/jobs?{'tag=a%3Db&' * 17}",
        f"/jobs?key={'k' * 20_000}",
        "/jobs/{job_id}/events?limit=1000000000",
        f"/jobs/{{job_id}}/events?{'type=JobCreated&' * 65}",
        f"/jobs/{{job_id}}?at={'9' * 20_000}",
        f"/jobs/{{job_id}}?wait=1&since={'9' * 5_000}",
    ],
    ids=lambda query: query[:40],
)
def test_what_asks_for_too_much_is_refused(query: str) -> None:
    world = World()
    answer = world.client.get(f"/api/v1{query.format(job_id=world.job())}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_number_without_end_is_refused() -> None:
    world = World()
    body = b'{"payload": ' + b"9" * 500_000 + b"}"
    answer = world.client.post(
        f"/api/v1/jobs/{world.job()}/signals/go", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    world = World(body_seconds_max=0.05)
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/api/v1/jobs/x/cancel", "raw_path": b"",
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("127.0.0.1", 8400), "state": {},
        "client": ("127.0.0.1", 1), "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario() -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        await asyncio.wait_for(world.app(scope, receive, send), 30)

    asyncio.run(scenario())
    assert sent[0]["status"] == 408
