"""Who is answered: names that lead here by DNS rebinding, pages of other sites, and links with a token."""

from collections.abc import Callable
from pathlib import Path

import pytest

from griffon_shards.view.access import AllowedHosts, is_loopback

from .conftest import ORIGIN, View

PATHS = ("/", "/api/sets", "/api/samples", "/image/0/0", "/thumbnail/0/0", "/static/main.mjs", "/nothing")


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "[::1]"])
def test_names_of_loopback_are_answered(view: View, host: str) -> None:
    assert view.client.get("/api/sets", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "192.168.0.7", "", "[::2]", "localhost."]
)
def test_other_names_are_refused_everywhere(view: View, host: str) -> None:
    for path in PATHS:
        answer = view.client.get(path, headers={"host": host})
        assert (answer.status_code, answer.headers["content-type"]) == (421, "application/json"), path


def test_a_server_for_all_addresses_is_called_by_an_address_or_its_own_name() -> None:
    hosts = AllowedHosts("0.0.0.0")
    assert all(host in hosts for host in ("192.168.0.7:8765", "10.0.0.1", "[fe80::1]:80", "localhost"))
    assert not any(host in hosts for host in ("evil.example", "192.168.0.7.evil.example", ""))
    assert "gpu7.cluster:8765" in AllowedHosts("gpu7.cluster")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "gpu7", "localhost.evil.example")),
    ],
)
def test_only_loopback_goes_without_a_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1.evil.example"]
)
def test_a_page_of_another_origin_neither_reads_nor_writes(view: View, origin: str) -> None:
    for path in PATHS:
        assert view.client.get(path, headers={"origin": origin}).status_code == 403
    changed = view.client.put("/api/marks/0/0", json={"note": "x"}, headers={"origin": origin})
    assert (changed.status_code, view.get("/api/marks")) == (403, [])


def test_a_write_without_an_origin_is_refused(view: View) -> None:
    assert view.client.put("/api/marks/0/0", json={"note": "x"}).status_code == 403
    assert view.client.delete("/api/marks/0/0").status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_link_to_the_page_but_not_embed_it(view: View, site: str) -> None:
    embedded = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert view.client.get("/image/0/0", headers=embedded).status_code == 403
    assert view.client.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code == 200


def test_every_answer_has_the_headers(view: View) -> None:
    answers = [view.client.get(path) for path in PATHS]
    answers += [view.client.get("/api/sets", headers={"host": "evil.example"}), view.client.put("/api/marks/0/0")]
    assert {answer.status_code for answer in answers} == {200, 403, 404, 421}
    for answer in answers:
        policy = answer.headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not [rule for rule in policy if "unsafe" in rule or "*" in rule or "data:" in rule or "http" in rule]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


@pytest.fixture
def guarded(frozen_set: Path, open_view: Callable[..., View]) -> View:
    return open_view(frozen_set, host="0.0.0.0", token="s3cret")


def test_without_the_token_nothing_is_answered(guarded: View) -> None:
    for path in (*PATHS, "/?token=", "/?token=S3cret", "/api/sets?token=s3cre"):
        answer = guarded.client.get(path)
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False), path
    written = guarded.client.put("/api/marks/0/0?token=s3cret", json={"note": ""}, headers={"origin": ORIGIN})
    assert written.status_code == 401
    guarded.client.cookies.set("griffon-view-8765", "wrong", domain="127.0.0.1")
    assert guarded.client.get("/api/sets").status_code == 401


def test_the_link_with_the_token_leaves_it_in_a_cookie(guarded: View) -> None:
    answer = guarded.client.get("/?task=DET&token=s3cret&q=a%20b")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?task=DET&q=a+b")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    assert guarded.client.get(answer.headers["location"]).status_code == 200
    assert guarded.get("/api/samples", task="DET")["total"] > 0


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example/x", "/\\/evil.example/x"])
def test_the_redirect_stays_on_this_server(guarded: View, path: str) -> None:
    location = guarded.client.get(f"http://127.0.0.1:8765{path}?token=s3cret").headers["location"]
    assert location == "/evil.example/x"


@pytest.mark.parametrize("other", ['theme={"dark": 1}', 'a="open', "a[0]=1", "bare", "path=/x", "expires=Thu, 01 Jan"])
def test_cookies_of_other_programs_do_not_hide_the_token(guarded: View, other: str) -> None:
    guarded.client.cookies.clear()
    for cookies in (f"{other}; griffon-view-8765=s3cret", f"griffon-view-8765=s3cret; {other}"):
        assert guarded.client.get("/api/sets", headers={"cookie": cookies}).status_code == 200
    assert guarded.client.get("/api/sets", headers={"cookie": f"{other}; griffon-view-8765=x"}).status_code == 401


def test_a_path_of_thousands_of_digits_is_refused(view: View) -> None:
    digits = "9" * 5000
    for path in (f"/image/0/{digits}", f"/api/samples/{digits}/0", f"/static/{digits}"):
        assert view.error(path)[0] == 414
    assert view.error(f"/image/0/{digits[:100]}")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e%2fserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/index.html%00.mjs",
        "/static/",
        "/static/.",
        "/image/0/../../etc/passwd",
        "/image/0/..%2f..%2fetc%2fpasswd",
        "/reject-image/0/..%2f..%2fetc%2fpasswd",
        "/reject-image/0/x.jpg",
        "/api/marks/0/..%2fx",
    ],
)
def test_no_path_leads_to_a_file(view: View, path: str) -> None:
    answer = view.client.get(path)
    assert answer.status_code in (404, 405), answer.text
    assert b"root:" not in answer.content
    assert b"import" not in answer.content
