"""Only this machine's deployments are attacked, or those whose owner writes their host's name."""

from __future__ import annotations

import pytest

from gateway.redteam.permission import Forbidden, permitted


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://127.8.9.1", "https://[::1]:8443/v2/models/m"]
)
def test_a_loopback_address_needs_no_confirmation(url: str) -> None:
    assert str(permitted(url, None)) == url


def test_localhost_needs_none_where_it_resolves_to_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["127.0.0.1"]
    monkeypatch.setattr("socket.getaddrinfo", lambda *of: [(0, 0, 0, "", (one, 0)) for one in found])
    permitted("http://localhost:8080", None)
    found.append("10.0.0.7")
    with pytest.raises(Forbidden, match="localhost is not this machine"):
        permitted("http://localhost:8080", None)
    found.clear()
    with pytest.raises(Forbidden):
        permitted("http://localhost:8080", None)


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example.org",
        "http://10.0.0.7:8080",
        "http://0.0.0.0:8080",
        "http://127.0.0.1.example.org",
        "http://2130706433",
        "http://localhost.localdomain",
        "http://[::]",
    ],
)
def test_any_other_host_is_refused_until_its_name_is_written(url: str) -> None:
    with pytest.raises(Forbidden, match="--i-own-this") as refused:
        permitted(url, None)
    host = str(refused.value).rsplit("--i-own-this ", 1)[1]
    assert permitted(url, host).host == host


@pytest.mark.parametrize("confirmed", ["", "yes", "example.org", "models.example.org:8080", "127.0.0.1"])
def test_a_confirmation_of_another_host_is_refused(confirmed: str) -> None:
    with pytest.raises(Forbidden, match=r"names .*, but the URL's host is 'models\.example\.org'"):
        permitted("http://models.example.org:8080", confirmed)


def test_a_confirmation_of_another_host_is_refused_on_loopback_too() -> None:
    with pytest.raises(Forbidden, match=r"but the URL's host is '127\.0\.0\.1'"):
        permitted("http://127.0.0.1:8080", "models.example.org")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://127.0.0.1@models.example.org", "http://[x"],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(Forbidden):
        permitted(url, "models.example.org" if "@" in url else None)
