"""The file of API keys, `var/keys.jsonl`: one caller a line, each with a keyed hash of its key.

A key is 256 random bits; the file has its HMAC-SHA256 under the secret in `var/secret`. Both are readable
by their owner alone, and the file alone admits no request.

The file is only appended to. A later line replaces an earlier one of the same name. To revoke a key, delete
its line, or the file to revoke all. A last line without a line end, left by a writer that was killed, is
ignored and logged, and removed by the next append; any other invalid line makes the file invalid.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field

from gateway.core.errors import ArtifactError, Problem
from gateway.policy.fields import Name, Strict
from gateway.private_files import append_line, convert_list, write_lock, write_private_file

KEYS_FILE = "keys.jsonl"
LIST_FILE = "keys.json"
"""The file of earlier versions: one JSON list."""
SECRET_FILE = "secret"  # noqa: S105 (a file name)
SECRET_BYTES = 32
SCOPES = ("explain", "infer", "metadata")
"""The scopes of a key. `explain`: the findings of the caller's own decisions; `infer`: inference, its results
and `metadata`; `metadata`: descriptions of the models."""
log = logging.getLogger(__name__)


class Key(Strict):
    """One line of the file. hash: hexadecimal HMAC-SHA256; per_s: rows a second; models: None for all."""

    name: Name
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tier: str = "anonymous"
    per_s: Annotated[float, Field(ge=0)] | None = None
    scopes: Annotated[frozenset[str], Field(strict=False)] = frozenset({"infer"})
    models: Annotated[frozenset[str], Field(strict=False)] | None = None


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
        raise ValueError(f"line {number} is no key: {error}") from error


def load_keys(var: Path) -> list[Key]:
    """The keys in the file, the latest of each name; none without a file.

    Raises: ArtifactError if the file is invalid.
    """
    convert_keys(var)
    return _read(var / KEYS_FILE)


def _read(path: Path) -> list[Key]:
    if not path.exists():
        return []
    try:
        return list({key.name: key for key in parse_keys(path.read_bytes())}.values())
    except (OSError, ValueError) as error:
        raise ArtifactError([Problem("", f"is not a list of keys: {error}", str(path))]) from error


def add_key(
    var: Path,
    name: str,
    *,
    tier: str,
    per_s: float | None,
    scopes: frozenset[str],
    models: frozenset[str] | None = None,
) -> str:
    """Adds or replaces a caller and returns the key, which is not stored. Safe with concurrent processes.

    Returns once the line is on the disk.

    Raises: ArtifactError if the file is invalid; ValueError if an argument is; OSError.
    """
    key = "fsg_" + secrets.token_urlsafe(32)
    convert_keys(var)
    with write_lock(var):
        _read(var / KEYS_FILE)  # nothing is added to an invalid file: no replica would read it
        hash_ = hash_of_key(key, _secret(var))
        added = Key(name=name, hash=hash_, tier=tier, per_s=per_s, scopes=scopes, models=models)
        append_line(var / KEYS_FILE, _line(added), _is_key)
    return key


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


def _secret(var: Path) -> bytes:
    """The secret of this deployment, made if there is none. The caller holds the lock."""
    path = var / SECRET_FILE
    if not path.exists():
        write_private_file(path, secrets.token_bytes(SECRET_BYTES))
    return path.read_bytes()
