"""The persons of the administration plane, each with a role, and the token that proves who sends a request.

A running gateway reads the file of persons (`persons_file.py`) again when it has changed. From an invalid
file no person is read: only the token of the environment (`ADMIN`) opens the administration then.

| role     | may                                                                |
|----------|--------------------------------------------------------------------|
| scraper  | read the metrics, for programs                                     |
| viewer   | the same, and read status, policy and decisions                    |
| reviewer | the same, and see and answer the rows that wait for review         |
| operator | the same, and reload, load, unload, stop, resume, end sessions     |
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from gateway.access.persons_file import (
    ADMIN,
    MIN_TOKEN_BYTES,
    PERSONS_FILE,
    hash_of_token,
    load_persons,
    persons_secret,
)
from gateway.core.errors import ArtifactError

log = logging.getLogger(__name__)


class Role(IntEnum):
    """What a person may do: each role includes those below it."""

    SCRAPER = 0
    VIEWER = 1
    REVIEWER = 2
    OPERATOR = 3

    @property
    def label(self) -> str:
        return self.name.lower()


ROLES = {role.label: role for role in Role}


@dataclass(frozen=True, slots=True)
class Person:
    """A person with a role. credential: the hash of the token; it differs once the token is replaced."""

    name: str
    role: Role
    credential: str


class Persons:
    """The persons in the file of a folder for state, read again when it changes, and the one of ADMIN."""

    def __init__(self, state: Path, admin_token: str) -> None:
        """admin_token: of the environment. Blocks.

        Raises: ValueError for a token under MIN_TOKEN_BYTES; ArtifactError for the secret.
        """
        if len(admin_token.encode()) < MIN_TOKEN_BYTES:
            raise ValueError(f"a token of {len(admin_token.encode())} bytes could be guessed")
        self.secret = persons_secret(state)
        self._state, self._stamp = state, (0, 0, 0)
        self._by_hash: dict[str, Person] = {}
        self._by_name: dict[str, Person] = {}
        self._by_identity: dict[str, Person] = {}
        self.admin = Person(ADMIN, Role.OPERATOR, hash_of_token(admin_token, self.secret))
        self._refresh()  # so that the start says what is wrong with the file

    def with_token(self, token: str) -> Person | None:
        """The person in the file with this token. What a wrong token takes reveals no hash: it is keyed."""
        self._refresh()
        return self._by_hash.get(hash_of_token(token, self.secret))

    def with_admin_token(self, token: str) -> Person | None:
        """The person of the environment's token, if this is it. Compares in constant time."""
        given = hash_of_token(token, self.secret)
        return self.admin if hmac.compare_digest(given, self.admin.credential) else None

    def named(self, name: str) -> Person | None:
        """The person of this name, as of now."""
        self._refresh()
        return self.admin if name == ADMIN else self._by_name.get(name)

    def with_identity(self, identity: str) -> Person | None:
        """The person whom a trusted proxy calls so."""
        self._refresh()
        return self._by_identity.get(identity)

    def _refresh(self) -> None:
        """Reads the file if it is another than before. Cost: about 10 us if not."""
        stamp = _stamp_of(self._state / PERSONS_FILE)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            lines = load_persons(self._state)
        except ArtifactError as error:
            log.error("no person but %s is let in: %s", ADMIN, error)
            lines = []
        persons = [Person(line.name, ROLES[line.role], line.hash) for line in lines]
        self._by_hash = {person.credential: person for person in persons}
        self._by_name = {person.name: person for person in persons}
        called = zip(lines, persons, strict=True)
        self._by_identity = {line.identity: person for line, person in called if line.identity is not None}


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_mtime_ns, stat.st_ino, stat.st_size)
