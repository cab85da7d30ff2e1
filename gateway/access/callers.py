"""Who is calling, and what each caller may have.

`gateway key` adds a caller to the file of keys (`keys.py`); a running gateway looks at the file at most twice
a second, so a new key is honoured within one. A file that has only grown is read from where it ended; a large
one is read by a thread, a few keys at a time, so that requests go on meanwhile.

A key that was seen before is found by itself. That shows nothing of it to somebody who measures how long a
wrong key takes: a dictionary compares texts only where their hashes agree, under a secret of the process.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from gateway.access.keys import KEYS_FILE, SECRET_FILE, Key, add_key, hashed, keys_in, load_keys

__all__ = ["KEYS_FILE", "SECRET_FILE", "Caller", "Callers", "Key", "add_key", "load_keys"]

LOOK_EVERY_S = 0.5
AT_ONCE_BYTES = 32 * 2**10
"""A file so large, some 150 keys, takes a millisecond; what is larger is read by a thread."""
PAUSE_AFTER, PAUSE_S = 100, 0.0002
MOST_SEEN = 10_000
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever stands behind a request. `principal` is what budgets, reviews and the audit log are kept by."""

    principal: str
    tier: str = "anonymous"
    scopes: frozenset[str] = frozenset({"infer"})
    models: frozenset[str] | None = None

    def may(self, needs: frozenset[str]) -> bool:
        """Whether any of these scopes is the caller's; of none, nobody's is."""
        return not needs.isdisjoint(self.scopes)

    def may_ask(self, model: str) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True, eq=False)
class _Book:
    """What the file said. `end` is where its last key ended, `digest` that of the bytes until there."""

    secret: bytes = b""
    by_hash: dict[str, Caller] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    end: int = 0
    digest: bytes = b""
    seen: dict[str, Caller] = field(default_factory=dict)

    def find(self, key: str) -> Caller | None:
        """The caller behind a key. Cost: 0.1 us for one that was seen before, 2 us for any other."""
        caller = self.seen.get(key)
        if caller is None and self.secret:
            caller = self.by_hash.get(hashed(key, self.secret))
            if caller is not None:
                if len(self.seen) >= MOST_SEEN:
                    self.seen.clear()
                self.seen[key] = caller
        return caller


class Callers:
    """The callers of one deployment, re-read when the file changes. `anonymous_loopback` may be changed."""

    def __init__(
        self, var: Path, *, anonymous_loopback: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads the file, however large. Blocks: 0.7 s for 100,000 keys."""
        self._var = var
        self.anonymous_loopback = anonymous_loopback
        self._clock = clock
        self._looked_s = -LOOK_EVERY_S
        self._stamp: tuple[int, int, int, bool] | None = None
        self._size = 0
        self._reading = False
        self._book = _Book()
        if self._changed():
            self._read()

    def identify(self, key: str | None, address: str) -> Caller | None:
        """The caller behind a key, or an anonymous one from loopback if the policy allows; else None."""
        now_s = self._clock()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look()
        if key:
            return self._book.find(key)
        return _anonymous(address) if self.anonymous_loopback else None

    def rate_of(self, principal: str) -> float | None:
        """Rows a second that the caller's key states, if it states any."""
        return self._book.rates.get(principal)

    def _look(self) -> None:
        """Reads the file again if it has changed, or lets a thread do so if it is large."""
        if self._reading or not self._changed():
            return
        if self._size <= AT_ONCE_BYTES:
            self._read()
            return
        self._reading = True
        threading.Thread(target=self._read, name="callers", daemon=True).start()

    def _changed(self) -> bool:
        """Whether there is a file that was not looked at so far. Where there is none, nobody is known."""
        try:
            stat = (self._var / KEYS_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._book, self._stamp = _Book(), None
            return False
        before, self._size = self._stamp, stat.st_size
        self._stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size, (self._var / SECRET_FILE).exists())
        return self._stamp != before

    def _read(self) -> None:
        stamp = self._stamp
        try:
            content = (self._var / KEYS_FILE).read_bytes()
            book = _read_on(self._book, content, (self._var / SECRET_FILE).read_bytes())
        except (OSError, ValueError, RecursionError):
            log.exception("the callers on file cannot be read; those already known stay")
        else:
            if self._stamp == stamp:  # else it has been removed meanwhile
                self._book = book
        finally:
            self._reading = False


def _read_on(book: _Book, content: bytes, secret: bytes) -> _Book:
    """What the file says now; only what has been added to it is read, if nothing else has changed.

    Raises: ValueError, with the book as it was.
    """
    before = hashlib.sha256(memoryview(content)[: book.end]).digest()
    start = book.end if (before, secret) == (book.digest, book.secret) else 0
    callers: dict[str, Caller] = {}
    rates: dict[str, float] = {}
    for n, key in enumerate(keys_in(content, start), start=1):
        made, known = Caller(key.name, key.tier, key.scopes, key.models), book.by_hash.get(key.hash)
        callers[key.hash] = known if made == known else made  # else the old ones would go all at once
        if key.per_s is not None:
            rates[key.name] = key.per_s
        if n % PAUSE_AFTER == 0:
            time.sleep(PAUSE_S)  # a thread that only lets go of the interpreter has it back at once
    if start:  # the same dictionaries: to copy them would take as long as to read them
        book.by_hash.update(callers)
        book.rates.update(rates)
        callers, rates = book.by_hash, book.rates
    end = content.rfind(b"}") + 1
    return _Book(secret, callers, rates, end, hashlib.sha256(memoryview(content)[:end]).digest())


@lru_cache(maxsize=4096)
def _anonymous(address: str) -> Caller | None:
    """Whoever calls from a loopback address, by that address."""
    try:
        return Caller(f"anonymous@{address}") if ip_address(address).is_loopback else None
    except ValueError:
        return None
