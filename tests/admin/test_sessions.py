"""Files of sessions: only a keyed hash of the cookie is stored, and what cannot be read opens nothing."""

from __future__ import annotations

import stat
from pathlib import Path

from gateway.access.persons import Person, Role
from gateway.admin.sessions import MAX_SESSIONS_A_PERSON, SESSION_S, Sessions

ADA = Person("ada", Role.VIEWER, "0" * 64)
ORIGIN = "http://127.0.0.1:8082"


class Clock:
    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def opened(sessions: Sessions, cookie: str) -> bool:
    return sessions.find(cookie, sessions.handle(cookie), ORIGIN) is not None


def test_only_a_keyed_hash_of_the_cookie_is_stored_for_the_owner_alone(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "sessions", b"s" * 32)
    cookie = sessions.start(ADA, ORIGIN, "10.0.0.7")
    (path,) = (tmp_path / "sessions").iterdir()
    assert cookie not in path.name and cookie.encode() not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "sessions").stat().st_mode) == 0o700
    assert opened(sessions, cookie) and not opened(sessions, path.name)
    other = Sessions(tmp_path / "sessions", b"t" * 32)
    assert not opened(other, cookie), "the files alone open nothing"


def test_a_session_ends_when_its_time_is_over_and_its_file_is_removed(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, b"s" * 32, clock)
    cookie = sessions.start(ADA, ORIGIN, "")
    clock.now_s += SESSION_S - 1
    assert opened(sessions, cookie) and len(sessions.all()) == 1
    clock.now_s += 1
    assert not opened(sessions, cookie)
    clock.now_s += 10 * 365 * 86_400
    assert sessions.all() == [] and list(tmp_path.iterdir()) == []


def test_a_clock_that_was_set_back_ends_sessions_of_the_future(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, b"s" * 32, clock)
    cookie = sessions.start(ADA, ORIGIN, "")
    clock.now_s -= 3600
    assert not opened(sessions, cookie)


def test_the_oldest_session_of_a_person_gives_way(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, b"s" * 32, clock)
    other = sessions.start(Person("eve", Role.VIEWER, "1" * 64), ORIGIN, "")
    cookies = []
    for _ in range(MAX_SESSIONS_A_PERSON + 2):
        clock.now_s += 1
        cookies.append(sessions.start(ADA, ORIGIN, ""))
    assert [opened(sessions, one) for one in cookies[:3]] == [False, False, True]
    assert opened(sessions, other) and len(sessions.all()) == MAX_SESSIONS_A_PERSON + 1


def test_a_file_that_is_no_session_opens_nothing(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, b"s" * 32)
    cookie = sessions.start(ADA, ORIGIN, "")
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    second = sessions.start(ADA, ORIGIN, "")
    (other,) = [one for one in tmp_path.iterdir() if one != path]
    for content in (b"", b"{", b"[]", b"{}", b'{"id": 1}', other.read_bytes(), good.replace(b"1", b'"', 1)):
        path.write_bytes(content)
        assert not opened(sessions, cookie), content
    assert [session.id for session in sessions.all()] == [other.name]
    path.write_bytes(good)
    assert opened(sessions, cookie) and opened(sessions, second)


def test_nothing_outside_the_folder_is_read_or_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    sessions = Sessions(tmp_path / "sessions", b"s" * 32)
    for id_ in ("../kept", "..", "", "/etc/passwd", "A" * 64):
        sessions.end(id_)
    assert (tmp_path / "kept").exists() and sessions.all() == []
