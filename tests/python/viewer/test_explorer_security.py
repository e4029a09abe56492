"""What the explorer refuses, and the headers of all that it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from explorers import POST, client_of, explorer_of
from hallutrace.viewer.explorer.security import MAX_BODY, MAX_QUERY, Access
from hallutrace.viewer.page import content_security_policy


@pytest.fixture
def client(demo_run: Path) -> Any:
    return client_of(explorer_of(demo_run))


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "localhost:99", "[::1]:8765"])
def test_names_of_this_machine_lead_here(client: Any, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1", ""]
)
def test_other_names_do_not(client: Any, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert answer.json()["message"].startswith("Expected the name of this machine as host")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_other_sites_get_nothing(client: Any, origin: str) -> None:
    assert client.get("/", headers={"origin": origin}).status_code == 403
    assert client.get("/", headers={"origin": "http://127.0.0.1:8765"}).status_code == 200


def test_a_link_of_another_site_reaches_the_page_alone(client: Any) -> None:
    across = {"sec-fetch-site": "cross-site"}
    assert client.get("/", headers=across).status_code == 200
    assert client.get("/data/x/run", headers=across).status_code == 403
    assert client.get("/data/x/run", headers={"sec-fetch-site": "same-site"}).status_code == 403


def test_a_post_needs_what_no_form_sends(client: Any) -> None:
    assert client.post("/save", json={}).status_code == 403
    form = {"x-hallutrace": "1", "content-type": "application/x-www-form-urlencoded"}
    assert client.post("/save", content="a=1", headers=form).status_code == 415
    large = client.post("/save", content=b"x" * (MAX_BODY + 1), headers=POST)
    assert large.status_code == 413
    assert client.get("/?" + "x" * (MAX_QUERY + 1)).status_code == 414
    assert client.put("/").status_code == 405
    assert client.options("/").status_code == 405


@pytest.mark.parametrize("path", ["/", "/data/x/run", "/nothing", "/data/../../etc/passwd"])
def test_every_answer_has_the_headers(client: Any, path: str) -> None:
    headers = client.get(path).headers
    policy = f"{content_security_policy(served=True)}; frame-ancestors 'none'"
    assert headers["content-security-policy"] == policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_the_loopback_needs_no_token_unless_it_is_asked_for() -> None:
    assert Access.of("127.0.0.1", 1, has_token=False).token is None
    assert Access.of("localhost", 1, has_token=True).token is not None
    first, second = (Access.of("0.0.0.0", 1, has_token=False).token for _ in range(2))
    assert first is not None and second is not None and first != second and len(first) >= 32


def test_the_token_of_the_address_becomes_a_cookie(demo_run: Path) -> None:
    explorer = explorer_of(demo_run, host="0.0.0.0")
    client, token = client_of(explorer), explorer.access.token
    assert client.get("/").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    assert client.get(f"/data/x/run?token={token}").status_code == 401
    answer = client.get(f"/?token={token}")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert client.get("/").status_code == 200
    assert str(token) not in client.get("/").text


def test_the_token_as_a_header(demo_run: Path) -> None:
    explorer = explorer_of(demo_run, has_token=True)
    client = client_of(explorer)
    given = {"authorization": f"Bearer {explorer.access.token}"}
    assert client.get("/", headers=given).status_code == 200
    assert (
        client.get("/", headers={"authorization": "Bearer ü".encode("latin-1")}).status_code == 401
    )
    assert client.get("/", headers={"cookie": 'hallutrace-8765="\\'}).status_code == 401


def test_an_open_address_takes_its_own_names_alone() -> None:
    access = Access.of("0.0.0.0", 1, has_token=False)
    assert access.knows_host("192.0.2.7:80")
    assert not access.knows_host("evil.example")
