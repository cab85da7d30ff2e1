"""The file of API keys, `var/keys.jsonl`: one caller a line, each with a keyed hash of its key.

A key is 256 random bits; the file has its HMAC-SHA256 under the secret in `var/secret`. Both are readable
by their owner alone, and the file alone admits no request. No key is accepted from a file, or under a secret,
that another user may have written (`private_files.read_own`).

A new key is appended. A later line replaces an earlier one of the same name. Revoking writes the file anew
without the lines of a name, so that a part of the file never holds a key that was revoked. A last line
without a line end, left by a writer that was killed, is ignored and logged, and removed by the next append;
any other invalid line makes the file invalid.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import orjson
from pydantic import AfterValidator, Field, ValidationError

from gateway.core.errors import ArtifactError, Problem
from gateway.policy.fields import Name, Strict
from gateway.private_files import (
    append_line,
    convert_list,
    make_private_folder,
    read_own,
    write_lock,
    write_private_file,
)

KEYS_FILE = "keys.jsonl"
LIST_FILE = "keys.json"
"""The file of earlier versions: one JSON list."""
SECRET_FILE = "secret"  # noqa: S105 (a file name)
SECRET_BYTES = 32
SCOPES = ("explain", "infer", "metadata")
"""The scopes of a key. `explain`: the findings of the caller's own decisions; `infer`: inference, its results
and `metadata`; `metadata`: descriptions of the models."""
log = logging.getLogger(__name__)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment: TypeAlias = Annotated[datetime, Field(strict=False), AfterValidator(_in_utc)]
"""A date, which is its first moment, or a date and time; in UTC unless it says otherwise."""


class Key(Strict):
    """One line of the file.

    hash: hexadecimal HMAC-SHA256; per_s: rows a second; models: None for all; made: None in earlier versions;
    expires: from when on it is not accepted, None for never.
    """

    name: Name
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tier: str = "anonymous"
    per_s: Annotated[float, Field(ge=0)] | None = None
    scopes: Annotated[frozenset[str], Field(strict=False)] = frozenset({"infer"})
    models: Annotated[frozenset[str], Field(strict=False)] | None = None
    made: Moment | None = None
    expires: Moment | None = None


def parse_keys(content: bytes, start: int = 0) -> Iterator[Key]:
    """The keys in a file, line by line, superseded ones too; or only those after a line that ends at `start`.

    Raises:  ValueError at a line that is no key, after the keys before it.
    Cost:    4 us a key.
    """
    at = start
    while (end := content.find(b"\n", at)) >= 0:
        if line := content[at:end].strip():
            yield _parse_key(line, content, at)
        at = end + 1
    if last := content[at:].strip():
        try:
            yield _parse_key(last, content, at)
        except ValueError:
            log.warning("the last line of the keys on file is cut short: it is ignored")


def _parse_key(line: bytes, content: bytes, at: int) -> Key:
    try:
        return Key.model_validate(orjson.loads(line))
    except ValueError as error:
        number = content.count(b"\n", 0, at) + 1
        raise ValueError(f"line {number} is no key: {_what_is_wrong(error)}") from error


def _what_is_wrong(error: ValueError) -> str:
    """In one line, without the value."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def load_keys(var: Path) -> list[Key]:
    """The keys in the file, the latest of each name; none without a file.

    Raises: ArtifactError if the file is invalid, or may be another user's writing.
    """
    convert_keys(var)
    return list({key.name: key for key in parse_keys(_read_valid(var))}.values())


def _read_valid(var: Path) -> bytes:
    """The content of the file of keys, empty without a file. Raises ArtifactError if it is invalid."""
    path = var / KEYS_FILE
    try:
        content = read_own(path)
        for _ in parse_keys(content):
            pass
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ArtifactError([Problem("", error.strerror or str(error), str(path))]) from error
    except ValueError as error:
        raise ArtifactError([Problem("", f"is not a list of keys: {error}", str(path))]) from error
    return content


def add_key(
    var: Path,
    name: str,
    *,
    tier: str,
    per_s: float | None,
    scopes: frozenset[str],
    models: frozenset[str] | None = None,
    expires: datetime | None = None,
) -> str:
    """Adds or replaces a caller and returns the key, which is not stored. Safe with concurrent processes.

    Returns once the line is on the disk.

    Raises: ArtifactError if the file is invalid; ValueError if an argument is; OSError.
    """
    made = datetime.now(UTC).replace(microsecond=0)
    key = "fsg_" + secrets.token_urlsafe(32)
    make_private_folder(var)
    convert_keys(var)
    with write_lock(var):
        has_keys = bool(_read_valid(var))  # nothing is added to an invalid file: no replica would read it
        added = Key(
            name=name,
            hash=hash_of_key(key, _secret(var, may_be_made=not has_keys)),
            tier=tier,
            per_s=per_s,
            scopes=scopes,
            models=models,
            made=made,
            expires=expires,
        )
        append_line(var / KEYS_FILE, _line(added), _is_key)
    return key


def revoke_key(var: Path, name: str) -> bool:
    """Removes every line of a caller from the file. False if it has none. Safe with concurrent processes.

    Raises: ArtifactError if the file is invalid; OSError.
    """
    convert_keys(var)
    with write_lock(var):
        lines = [line for line in _read_valid(var).split(b"\n") if line.strip() and _is_key(line)]
        kept = [line for line in lines if orjson.loads(line)["name"] != name]
        if len(kept) == len(lines):
            return False
        write_private_file(var / KEYS_FILE, b"".join(line + b"\n" for line in kept))
    return True


def convert_keys(var: Path) -> None:
    """Makes the file of keys from the list of an earlier version, if there is one, and renames that.

    Raises: ArtifactError if the list is invalid; OSError.
    """
    path = var / LIST_FILE
    if not path.exists():
        return
    with write_lock(var):
        try:
            convert_list(path, var / KEYS_FILE, _lines_of_list)
        except FileNotFoundError:
            pass  # another process has done it
        except PermissionError as error:
            raise ArtifactError([Problem("", error.strerror or str(error), str(path))]) from error
        except ValueError as error:
            raise ArtifactError([Problem("", f"is not a list of keys: {error}", str(path))]) from error


def _lines_of_list(content: bytes) -> list[bytes]:
    rows = orjson.loads(content)
    if not isinstance(rows, list):
        raise ValueError("no JSON list")
    return [_line(Key.model_validate(row)) for row in rows]


def _line(key: Key) -> bytes:
    return orjson.dumps(key.model_dump(mode="json", exclude_none=True))


def _is_key(line: bytes) -> bool:
    try:
        return bool(Key.model_validate(orjson.loads(line)))
    except ValueError:
        return False


def hash_of_key(key: str, secret: bytes) -> str:
    """The stored hash of a key: 64 hexadecimal digits. Cost: 2 us."""
    return hmac.digest(secret, key.encode(), "sha256").hex()


def read_secret(var: Path) -> bytes:
    """The secret of this deployment. Raises OSError, or ValueError if it is cut short."""
    secret = read_own(var / SECRET_FILE)
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"{var / SECRET_FILE}: has {len(secret)} bytes of {SECRET_BYTES}")
    return secret


def _secret(var: Path, *, may_be_made: bool) -> bytes:
    """The secret of this deployment; a new one if there is none yet. The caller holds the lock."""
    path = var / SECRET_FILE
    if may_be_made and not path.exists():
        write_private_file(path, secrets.token_bytes(SECRET_BYTES))
    try:
        return read_secret(var)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        what = f"{why or error}: restore it, or remove {KEYS_FILE} beside it and make new keys"
        raise ArtifactError([Problem("", what, str(path))]) from error
