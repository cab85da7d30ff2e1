"""The file of API keys, `var/keys.json`: a list of callers, each with a keyed hash of the key.

A key is 256 random bits; the file holds HMAC-SHA256 of it under a secret that lies beside it (`var/secret`,
mode 0600), so the file alone lets nobody in. It is written whole, and read one key at a time.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field

from gateway.core.errors import ArtifactError, Problem
from gateway.policy.fields import Name, Strict

KEYS_FILE = "keys.json"
SECRET_FILE = "secret"  # noqa: S105 (a file name)
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODE = json.JSONDecoder().raw_decode


SCOPES = ("explain", "infer", "metadata")
"""What a key may allow: everything found of the caller's own decisions; inference, and all of the caller's
own that comes of it; what the gateway says of its models. `infer` includes `metadata`."""


class Key(Strict):
    """One caller as it is kept. `hash` is hexadecimal HMAC-SHA256; `models` that it may ask, None for all."""

    name: Name
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tier: str = "anonymous"
    per_s: Annotated[float, Field(ge=0)] | None = None
    scopes: Annotated[frozenset[str], Field(strict=False)] = frozenset({"infer"})
    models: Annotated[frozenset[str], Field(strict=False)] | None = None


def load_keys(var: Path) -> list[Key]:
    """The callers on file; none if there is no file. Raises ArtifactError if it is broken."""
    path = var / KEYS_FILE
    if not path.exists():
        return []
    try:
        return list(keys_in(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError([Problem("", f"is not a list of keys: {error}", str(path))]) from error


def keys_in(content: bytes, start: int = 0) -> Iterator[Key]:
    """The keys in a file, one by one; or only those that follow, from where a key ended.

    Raises: ValueError where the file is broken, after the keys before that.
    Cost:   6 us a key.
    """
    text = content[start:].decode()
    at = _skip(text, 0) if start else _past(text, 0, "[")
    among = start > 0
    while not text.startswith("]", at):
        value, at = _DECODE(text, _past(text, at, ",") if among else at)
        yield Key.model_validate(value)
        at, among = _skip(text, at), True
    if _skip(text, at + 1) != len(text):
        raise ValueError("something follows the list")


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _past(text: str, at: int, mark: str) -> int:
    """Where something begins after white space, a mark, and white space."""
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark!r} at character {at}")
    return _skip(text, at + 1)


def add_key(
    var: Path,
    name: str,
    *,
    tier: str,
    per_s: float | None,
    scopes: frozenset[str],
    models: frozenset[str] | None = None,
) -> str:
    """Adds or replaces a caller and returns the key, which is not kept. The file is replaced whole."""
    key = "fsg_" + secrets.token_urlsafe(32)
    hash_ = hashed(key, _secret_of(var))
    made = Key(name=name, hash=hash_, tier=tier, per_s=per_s, scopes=scopes, models=models)
    keys = [*(one for one in load_keys(var) if one.name != name), made]
    body = orjson.dumps(
        [one.model_dump(mode="json", exclude_none=True) for one in keys], option=orjson.OPT_INDENT_2
    )
    _write_private(var / KEYS_FILE, body)
    return key


def hashed(key: str, secret: bytes) -> str:
    """What is kept of a key."""
    return hmac.digest(secret, key.encode(), "sha256").hex()


def _secret_of(var: Path) -> bytes:
    """The secret of this deployment, made where there is none."""
    path = var / SECRET_FILE
    if not path.exists():
        _write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _write_private(path: Path, body: bytes) -> None:
    """Replaces a file in one step, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_bytes(body)
    draft.replace(path)
