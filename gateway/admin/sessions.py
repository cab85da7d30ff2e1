"""Sessions of persons in browsers: a file each in the folder for state, so that every replica knows them.

A session begins at a login with a cookie of 256 random bits, and ends at a logout, when an operator ends it,
when its person is revoked or gets another token, and after 12 hours. Only a keyed hash of the cookie is
stored, as the name of the file.

A browser sends a cookie to every port of a host, so another service at 127.0.0.1 could get it. So a session
is also bound to a part of its URLs, `/session/HANDLE/...`: the cookie alone opens nothing, without TLS it is
sent to these URLs only, and browsers tell other ports nothing of them. Neither half follows from the other
without the secret of the folder. A session is bound to the scheme, host and port of its login as well.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from gateway.access.persons import Person
from gateway.private_files import write_private_file

SESSION_S = 12 * 3600.0
MAX_SESSIONS_A_PERSON = 20
HANDLE_CHARACTERS = 24
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """One session. id: names it, and opens nothing; credential: of the person at the login."""

    id: str
    person: str
    credential: str
    origin: str
    address: str
    started_s: float

    @property
    def ends_s(self) -> float:
        return self.started_s + SESSION_S


class Sessions:
    """The sessions in one folder, which is made at the first login. Every method but the pure ones blocks."""

    def __init__(self, folder: Path, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._secret, self._clock = folder, secret, clock

    def start(self, person: Person, origin: str, address: str) -> str:
        """Begins a session, and returns its cookie. Of more than 20 of a person the oldest ends.

        Raises: OSError.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = [session for session in self.all() if session.person == person.name]
        for session in own[MAX_SESSIONS_A_PERSON - 1 :]:
            self.end(session.id)
        cookie = secrets.token_urlsafe(32)
        session = Session(self._id(cookie), person.name, person.credential, origin, address, self._clock())
        write_private_file(self._folder / session.id, orjson.dumps(asdict(session)))
        return cookie

    def find(self, cookie: str, handle: str, origin: str) -> Session | None:
        """The session of a cookie at the URLs of its handle and at its origin. Cost: about 50 us."""
        if not cookie or not hmac.compare_digest(handle.encode(), self.handle(cookie).encode()):
            return None
        session = self._read(self._id(cookie))
        return session if session is not None and session.origin == origin else None

    def all(self) -> list[Session]:
        """Those that have not ended, the latest first. Removes the files of those that have."""
        if not self._folder.is_dir():
            return []
        sessions = []
        for path in self._folder.iterdir():
            if (session := self._read(path.name)) is not None:
                sessions.append(session)
            else:
                self._remove_old(path)
        return sorted(sessions, key=lambda session: -session.started_s)

    def end(self, id_: str) -> None:
        """Ends a session, if there is one of this id."""
        if _is_id(id_):
            (self._folder / id_).unlink(missing_ok=True)

    def handle(self, cookie: str) -> str:
        """The part of the URLs that belongs to a cookie."""
        return self._derived("handle", cookie)[:HANDLE_CHARACTERS]

    def csrf(self, cookie: str) -> str:
        """What the forms of a session carry."""
        return self._derived("csrf", cookie)

    def _id(self, cookie: str) -> str:
        return self._derived("session", cookie)

    def _derived(self, use: str, cookie: str) -> str:
        return hmac.digest(self._secret, f"{use}:{cookie}".encode(), "sha256").hex()

    def _remove_old(self, path: Path) -> None:
        """Removes a file that is no running session, unless another replica may be writing it now."""
        try:
            if self._clock() - path.stat().st_mtime > SESSION_S:
                path.unlink()
        except FileNotFoundError:
            pass  # another replica was faster

    def _read(self, id_: str) -> Session | None:
        """A session that has not ended. None, too, for a file that cannot be read."""
        if not _is_id(id_):
            return None
        try:
            session = Session(**orjson.loads((self._folder / id_).read_bytes()))
            age_s = self._clock() - session.started_s
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("a session cannot be read, and opens nothing: %s", error)
            return None
        return session if session.id == id_ and -1.0 <= age_s < SESSION_S else None


def _is_id(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
