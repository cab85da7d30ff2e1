"""The file of the persons of the administration plane: `persons.jsonl` in the folder for state.

One line a person, with a keyed hash of the person's token: HMAC-SHA256 under the secret in `persons-secret`.
A token is 256 random bits; both files are readable by their owner alone. Every change replaces the file as a
whole, so that a crash leaves it as it was before or as it is after. Nothing is believed of a file that
another user may have written (`private_files.read_own`).
"""

from __future__ import annotations

import hmac
import secrets
import time
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field, ValidationError

from gateway.core.errors import ArtifactError, Problem
from gateway.policy.fields import Name, Strict
from gateway.private_files import read_own, write_lock, write_private_file

PERSONS_FILE = "persons.jsonl"
PERSONS_SECRET_FILE = "persons-secret"  # noqa: S105 (a file name)
SECRET_BYTES = 32
MIN_TOKEN_BYTES = 16
"""Of the token of the environment, which a person may have chosen."""
ADMIN = "admin"
"""The name of the person whose token is in the environment: an operator who is in no file."""
MAX_PERSONS = 1000


class PersonLine(Strict):
    """One line of the file. hash: hexadecimal HMAC-SHA256 of the token; identity: at a trusted proxy."""

    name: Name
    role: Literal["scraper", "viewer", "reviewer", "operator"]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    added_s: float
    identity: Annotated[str, Field(min_length=1, max_length=254)] | None = None


def load_persons(state: Path) -> list[PersonLine]:
    """The persons in the file, in the order in which they were added; none without a file.

    Raises: ArtifactError if the file cannot be read or is invalid, naming its line.
    """
    path = state / PERSONS_FILE
    try:
        lines = read_own(path).splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ArtifactError([Problem("", f"cannot be read: {error.strerror}", str(path))]) from error
    persons = [_parsed(line, path, number) for number, line in enumerate(lines, start=1)]
    return list({person.name: person for person in persons}.values())


def _parsed(line: bytes, path: Path, number: int) -> PersonLine:
    try:
        return PersonLine.model_validate(orjson.loads(line))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        why = ": ".join([*map(str, first["loc"]), first["msg"]])
    except ValueError:
        why = "no JSON"
    what = f"is no person: {why}; correct the line or delete it, and add the person again"
    raise ArtifactError([Problem("", what, str(path), number)])


def add_person(state: Path, name: str, role: str, identity: str | None = None) -> str:
    """Adds or replaces a person, and returns the token, which is not stored. Safe with other processes.

    Raises: ArtifactError if the file is invalid; ValueError if an argument is; OSError.
    """
    token = "fsa_" + secrets.token_urlsafe(32)
    if name == ADMIN:
        raise ValueError(f"{ADMIN} is the name of the token in the environment: choose another")
    fields = {"name": name, "role": role, "hash": "0" * 64, "added_s": time.time(), "identity": identity}
    person = PersonLine.model_validate(fields)
    secret = persons_secret(state)
    with write_lock(state):
        others = [person for person in load_persons(state) if person.name != name]
        if len(others) >= MAX_PERSONS:
            raise ValueError(f"{MAX_PERSONS} persons are the most: revoke some first")
        if identity is not None and any(person.identity == identity for person in others):
            raise ValueError(f"the identity {identity!r} is another person's")
        _write(state, [*others, person.model_copy(update={"hash": hash_of_token(token, secret)})])
    return token


def revoke_person(state: Path, name: str) -> bool:
    """Removes a person, whose token and sessions then open nothing; whether there was one.

    Raises: ArtifactError if the file is invalid; OSError.
    """
    with write_lock(state):
        persons = load_persons(state)
        left = [person for person in persons if person.name != name]
        if len(left) < len(persons):
            _write(state, left)
        return len(left) < len(persons)


def _write(state: Path, persons: list[PersonLine]) -> None:
    lines = [orjson.dumps(person.model_dump(exclude_none=True)) + b"\n" for person in persons]
    write_private_file(state / PERSONS_FILE, b"".join(lines))


def hash_of_token(token: str, secret: bytes) -> str:
    """The stored hash of a token: 64 hexadecimal digits."""
    return hmac.digest(secret, b"token:" + token.encode(), "sha256").hex()


def persons_secret(state: Path) -> bytes:
    """The secret of a folder for state, made if there is none. Blocks. Raises ArtifactError."""
    path = state / PERSONS_SECRET_FILE
    try:
        with write_lock(state):
            if not path.exists():
                write_private_file(path, secrets.token_bytes(SECRET_BYTES))
            secret = read_own(path)
    except OSError as error:
        what = f"cannot be made or read: {error.strerror or error}; a running gateway writes to this folder"
        raise ArtifactError([Problem("", what, str(path))]) from error
    if len(secret) < SECRET_BYTES:
        what = f"has {len(secret)} bytes instead of {SECRET_BYTES}: delete it, and add the persons again"
        raise ArtifactError([Problem("", what, str(path))])
    return secret


def replica_token(secret: bytes) -> str:
    """The token with which the replicas of a folder for state ask each other."""
    return "fsr_" + hmac.digest(secret, b"replicas", "sha256").hex()
