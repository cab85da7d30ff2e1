"""Who is calling: API keys, kept only as keyed hashes, and what each caller may have.

`gateway key` adds a caller to `var/keys.json`; a running gateway looks at the file at most twice a second,
so a new key is honoured within one. A key is 256 random bits; the file holds HMAC-SHA256 of it under a
secret that lies beside it (`var/secret`, mode 0600), so the file alone lets nobody in.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field, ValidationError

from gateway.errors import ArtifactError, Problem
from gateway.policy import Name, Strict

KEYS_FILE = "keys.json"
SECRET_FILE = "secret"  # noqa: S105 (a file name)
LOOK_EVERY_S = 0.5
log = logging.getLogger(__name__)


class Key(Strict):
    """One caller as it is kept. `hash` is hexadecimal HMAC-SHA256."""

    name: Name
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tier: str = "anonymous"
    per_s: Annotated[float, Field(ge=0)] | None = None
    scopes: Annotated[frozenset[str], Field(strict=False)] = frozenset({"infer"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever stands behind a request. `principal` is what budgets, reviews and the audit log are kept by."""

    principal: str
    tier: str = "anonymous"
    scopes: frozenset[str] = frozenset({"infer"})


class Callers:
    """The callers of one deployment, re-read when the file changes. `anonymous_loopback` may be changed."""

    def __init__(
        self, var: Path, *, anonymous_loopback: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._var = var
        self.anonymous_loopback = anonymous_loopback
        self._clock = clock
        self._looked_s = -LOOK_EVERY_S
        self._stamp: tuple[int, int, bool] | None = None
        self._secret = b""
        self._by_hash: dict[str, Caller] = {}
        self._rates: dict[str, float] = {}

    def identify(self, key: str | None, address: str) -> Caller | None:
        """The caller behind a key, or an anonymous one from loopback if the policy allows; else None."""
        self._look()
        if key:
            return self._by_hash.get(_hashed(key, self._secret)) if self._secret else None
        if self.anonymous_loopback and _is_loopback(address):
            return Caller(f"anonymous@{address}")
        return None

    def rate_of(self, principal: str) -> float | None:
        """Rows a second that the caller's key states, if it states any."""
        return self._rates.get(principal)

    def _look(self) -> None:
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        path = self._var / KEYS_FILE
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._by_hash, self._rates, self._stamp = {}, {}, None
            return
        stamp = (stat.st_mtime_ns, stat.st_ino, (self._var / SECRET_FILE).exists())
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                keys = load_keys(self._var)
                self._secret = (self._var / SECRET_FILE).read_bytes()
            except (ArtifactError, OSError):
                log.exception("the callers on file cannot be read; those already known stay")
                return
            self._by_hash = {key.hash: Caller(key.name, key.tier, key.scopes) for key in keys}
            self._rates = {key.name: key.per_s for key in keys if key.per_s is not None}


def load_keys(var: Path) -> list[Key]:
    """The callers on file; none if there is no file. Raises ArtifactError if it is broken."""
    path = var / KEYS_FILE
    if not path.exists():
        return []
    try:
        return [Key.model_validate(one) for one in orjson.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise ArtifactError([Problem("", f"is not a list of keys: {error}", str(path))]) from error


def add_key(var: Path, name: str, *, tier: str, per_s: float | None, scopes: frozenset[str]) -> str:
    """Adds or replaces a caller and returns the key, which is not kept. The file is replaced whole."""
    key = "fsg_" + secrets.token_urlsafe(32)
    made = Key(name=name, hash=_hashed(key, _secret_of(var)), tier=tier, per_s=per_s, scopes=scopes)
    keys = [*(one for one in load_keys(var) if one.name != name), made]
    body = orjson.dumps([one.model_dump(mode="json") for one in keys], option=orjson.OPT_INDENT_2)
    _write_private(var / KEYS_FILE, body)
    return key


def _secret_of(var: Path) -> bytes:
    """The secret of this deployment, made where there is none."""
    path = var / SECRET_FILE
    if not path.exists():
        _write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _hashed(key: str, secret: bytes) -> str:
    return hmac.digest(secret, key.encode(), "sha256").hex()


def _write_private(path: Path, body: bytes) -> None:
    """Replaces a file in one step, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_bytes(body)
    draft.replace(path)


@lru_cache(maxsize=4096)
def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
