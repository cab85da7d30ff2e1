"""Who sends a request to the administration plane: a person by token or session, or another replica.

| proof                                                  | who                                               |
|--------------------------------------------------------|---------------------------------------------------|
| `Authorization: Bearer`, a token of `gateway admin add`| its person                                        |
| the same, the token of the environment                 | the person ADMIN, unless too many were wrong      |
| the same, the token that replicas derive               | another replica, which speaks for itself alone    |
| the cookie of a session, at the session's own URLs     | the person who signed in, while the token holds   |

The policy's `person_header` of a trusted proxy proves a person at the login page alone, where a session
begins: a request that another site makes a browser send still needs the session's URLs and CSRF token.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from starlette.requests import Request

from fallbacks.worker import Worker
from gateway.access.persons import Person, Persons, Role
from gateway.access.persons_file import replica_token
from gateway.access.proxies import Proxies
from gateway.admin.sessions import Session, Sessions
from gateway.admin.throttle import LoginThrottle

T = TypeVar("T")
COOKIE, SECURE_COOKIE = "fs_session", "__Host-fs_session"
SESSION_ROOT = "/session/"
_REPLICA = Person("replica", Role.OPERATOR, "")


class TooManyAttempts(Exception):
    """Too many wrong tokens came from this address, or in all: none is compared for `wait_s` seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many wrong tokens: wait {wait_s:.0f} s")
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The sender of a request. session, csrf, root: of a session, whose URLs begin with `root`; else none."""

    person: Person
    session: Session | None = None
    csrf: str = ""
    root: str = ""

    @property
    def is_replica(self) -> bool:
        return self.person is _REPLICA


class Authentication:
    """Of one replica. proxies: trusted to name the client's address, and to say whether it uses TLS.

    What it says of persons and sessions it reads from files: ask `in_thread`.
    """

    def __init__(
        self, persons: Persons, sessions: Sessions, proxies: Proxies | None, person_header: str | None
    ) -> None:
        """person_header: in which the proxies name a person; None for none."""
        self._person_header = person_header
        self.persons, self.sessions = persons, sessions
        self._throttle = LoginThrottle()
        self._proxies = proxies
        self._thread = Worker("persons")
        self._replica_token = replica_token(persons.secret)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What this work returns. One thread does all of it, in order: the event loop waits for no disk."""
        return await self._thread.call(work)

    def identify(self, request: Request, handle: str) -> SignedIn | None:
        """The sender, or None. handle: of the session in the path, "" if there is none.

        Raises:  TooManyAttempts.
        """
        if (header := request.headers.get("authorization")) is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer":
                return None
            if hmac.compare_digest(token.encode(), self._replica_token.encode()):
                return SignedIn(_REPLICA)
            person = self.person_of(request, token.strip())
            return None if person is None else SignedIn(person)  # a wrong token is refused, session or not
        return self._of_session(request, handle) if handle else None

    def person_of(self, request: Request, token: str) -> Person | None:
        """The person of a token. Counts a wrong one. Raises TooManyAttempts."""
        if (person := self.persons.with_token(token)) is not None:
            return person
        address = self.address_of(request)
        if (wait_s := self._throttle.wait_s(address)) > 0:
            raise TooManyAttempts(wait_s)
        person = self.persons.with_admin_token(token)
        if person is None:
            self._throttle.count(address)
        return person

    def _of_session(self, request: Request, handle: str) -> SignedIn | None:
        cookie = request.cookies.get(self.cookie_name(request), "")
        session = self.sessions.find(cookie, handle, self.origin_of(request))
        person = None if session is None else self.person_in(session)
        if session is None or person is None:
            return None
        identity = self.identity_of(request)
        if identity is not None and self.persons.with_identity(identity) != person:
            return None  # another person has signed in with the proxy meanwhile
        return SignedIn(person, session, self.sessions.csrf(cookie), SESSION_ROOT + handle)

    def person_in(self, session: Session) -> Person | None:
        """The person of a session; None once the token of its login is no longer the person's."""
        person = self.persons.named(session.person)
        return person if person is not None and person.credential == session.credential else None

    def identity_of(self, request: Request) -> str | None:
        """What a trusted proxy calls the person who signed in with it; None from any other peer."""
        peer = request.client.host if request.client else ""
        if self._person_header is None or self._proxies is None or not self._proxies.trusts(peer):
            return None
        given = request.headers.getlist(self._person_header)
        return given[0] if len(given) == 1 and given[0] else None

    def address_of(self, request: Request) -> str:
        """The address of the client, "" at a unix socket."""
        peer = request.client.host if request.client else ""
        if self._proxies is None:
            return peer
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        return self._proxies.client(peer, forwarded.encode("latin-1") if forwarded else None)

    def is_secure(self, request: Request) -> bool:
        """Whether the client uses TLS, with us or with a trusted proxy."""
        if request.scope["scheme"] == "https":
            return True
        peer = request.client.host if request.client else ""
        proxied = self._proxies is not None and self._proxies.trusts(peer)
        return proxied and request.headers.get("x-forwarded-proto", "").strip().lower() == "https"

    def origin_of(self, request: Request) -> str:
        """Scheme, host and port as the client calls them."""
        return f"http{'s' * self.is_secure(request)}://{request.headers.get('host', '')}"

    def cookie_name(self, request: Request) -> str:
        return SECURE_COOKIE if self.is_secure(request) else COOKIE


def authentication_of(request: Request) -> Authentication:
    return cast(Authentication, request.app.state.authentication)


def signed_in(request: Request) -> SignedIn | None:
    """The sender of a request that passed the middleware; None at a public path."""
    return getattr(request.state, "signed_in", None)


def person_of(request: Request) -> Person:
    """The person who sends this request, at a route that is not public."""
    sender = signed_in(request)
    assert sender is not None
    return sender.person


def split_session(path: str) -> tuple[str, str]:
    """The handle of a session in a path, "" without one; and the path below it."""
    if not path.startswith(SESSION_ROOT):
        return "", path
    handle, slash, rest = path.removeprefix(SESSION_ROOT).partition("/")
    return handle, slash + rest
