"""Whom the server of `flowprep browse` answers, and whom it refuses."""

from __future__ import annotations

import pytest

from flowprep.dataset.read import FlowDataset
from flowprep.look.browse.guard import MAX_QUERY_BYTES
from tests.look.browse.asking import ENDPOINTS, KEY
from tests.look.browse.browsing import Client, served


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
@pytest.mark.parametrize("path", ["/", "/api/dataset", f"/stream?key={KEY}&name=rgb", "/nowhere"])
def test_methods_that_could_change_something(client: Client, method: str, path: str) -> None:
    answer = client.get(path, method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:80", "localhost.:{port}", "*"],
)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_other_hosts(client: Client, host: str, path: str) -> None:
    host = host.format(port=client.host.partition(":")[2])
    answer = client.get(path, {"host": host})
    assert answer.status == 421
    assert "bound" not in answer.text


def test_its_own_hosts(client: Client) -> None:
    port = client.host.partition(":")[2]
    for host in (client.host, f"localhost:{port}", f"LOCALHOST:{port}"):
        assert client.get("/api/dataset", headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://{host}"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:{port}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_other_origins(client: Client, headers: dict[str, str], path: str) -> None:
    port = client.host.partition(":")[2]
    given = {name: value.format(host=client.host, port=port) for name, value in headers.items()}
    answer = client.get(path, given)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_origin(client: Client) -> None:
    for headers in ({"origin": f"http://{client.host}"}, {"sec-fetch-site": "same-origin"}):
        assert client.get("/api/dataset", headers=headers).status == 200


def test_long_queries(client: Client) -> None:
    assert client.get(f"/api/video?key={'a' * 20000}").status == 404
    assert client.get(f"/api/video?key={'a' * MAX_QUERY_BYTES}").status == 414
    assert client.get(f"/{'a' * 1000}").status == 414


@pytest.mark.parametrize("path", [*ENDPOINTS, "/nowhere"])
def test_headers_of_every_answer(client: Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    for words in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert words in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("access-control")]


def test_token(dataset: FlowDataset) -> None:
    token = "s3cret-of-this-test"
    with served(dataset, token=token) as url:
        client = Client(url)
        for path in [*ENDPOINTS, "/nowhere"]:
            answer = client.get(path)
            assert answer.status == 403
            assert token not in answer.text
        for wrong in ("", "wrong", token[:-1], token + "x", "%ff", "%C3%A9", "&".join("ab" * 9)):
            assert client.get(f"/?token={wrong}").status == 403
        path = f"/?token={token}"
        assert client.get(f"/api/dataset?token={token}").status == 403
        assert client.get(path, {"host": "evil.example"}).status == 421
        assert client.get(path, {"sec-fetch-site": "cross-site"}).status == 403
        assert not client.cookie
        answer = client.get(path)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Domain" not in cookie
        for path in ENDPOINTS:
            assert client.get(path).status == 200
        name = cookie.partition("=")[0]
        client.cookie = f"{name}=wrong"
        assert client.get("/api/dataset").status == 403
