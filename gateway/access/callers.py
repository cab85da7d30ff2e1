"""The callers in a file of keys: the caller of each key, with its tier, scopes, models and rate.

`gateway key` appends a caller to the file of keys (`keys.py`); a running gateway checks the file at most
twice a second, so a new key is accepted within a second. If lines were only appended, only they are parsed; a
large file is read by a thread, a few keys at a time, so that requests are served meanwhile.

A key that was seen before is looked up directly. The time that a wrong key takes reveals nothing: a
dictionary compares texts only where their hashes agree, under a secret of the process.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.access.keys import (
    KEYS_FILE,
    LIST_FILE,
    SECRET_FILE,
    Key,
    add_key,
    convert_keys,
    hash_of_key,
    load_keys,
    parse_keys,
)
from gateway.addresses import is_loopback, peer_address
from gateway.caching import BoundedCache
from gateway.core.errors import ArtifactError

__all__ = ["KEYS_FILE", "SECRET_FILE", "Caller", "Callers", "Key", "add_key", "load_keys"]

CHECK_EVERY_S = 0.5
INLINE_READ_BYTES = 32 * 2**10
"""About 150 keys, one millisecond on the event loop. A thread reads larger files."""
PAUSE_AFTER_KEYS, PAUSE_S = 100, 0.0002
MAX_SEEN_KEYS = 10_000
LONGEST_ADDRESS = 64
"""Longer than any IPv6 address with a zone. Longer texts from proxies are not cached."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. Budgets, reviews and the audit log are kept by `principal`."""

    principal: str
    tier: str = "anonymous"
    scopes: frozenset[str] = frozenset({"infer"})
    models: frozenset[str] | None = None

    def has_any(self, scopes: frozenset[str]) -> bool:
        """Whether the caller has at least one of these scopes; False if there are none."""
        return not scopes.isdisjoint(self.scopes)

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True, eq=False)
class _KeyTable:
    """The content of the file. end: offset after the last whole line; digest: of the bytes before it."""

    secret: bytes = b""
    by_hash: dict[str, Caller] = field(default_factory=dict)
    hash_of: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    end: int = 0
    digest: bytes = b""
    seen: dict[str, Caller] = field(default_factory=dict)

    def find(self, key: str) -> Caller | None:
        """The caller of a key. Cost: 0.1 us for one that was seen before, 2 us for any other."""
        caller = self.seen.get(key)
        if caller is None and self.secret:
            caller = self.by_hash.get(hash_of_key(key, self.secret))
            if caller is not None:
                if len(self.seen) >= MAX_SEEN_KEYS:
                    self.seen.clear()
                self.seen[key] = caller
        return caller

    def put(self, key: Key, caller: Caller) -> None:
        """Adds a caller, in place of an earlier one of the same name."""
        if (old := self.hash_of.get(key.name)) is not None and old != key.hash:
            self.by_hash.pop(old, None)
        self.by_hash[key.hash] = caller
        self.hash_of[key.name] = key.hash
        if key.per_s is not None:
            self.rates[key.name] = key.per_s
        else:
            self.rates.pop(key.name, None)


class Callers:
    """The callers in one file of keys, which is read again when it changes.

    only: the one model that keys of this file open; None: those that each key names, or every one.
    `anonymous_loopback` may be changed at any time.
    """

    def __init__(
        self,
        var: Path,
        *,
        anonymous_loopback: bool,
        only: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the file, however large. Blocks: 0.6 s for 100,000 keys."""
        self._var = var
        self._only = None if only is None else frozenset({only})
        self.anonymous_loopback = anonymous_loopback
        self._clock = clock
        self._checked_s = -CHECK_EVERY_S
        self._stamp: tuple[int, int, int, bool] | None = None
        self._size = 0
        self._reading = False
        self._table = _KeyTable()
        if self._changed():
            self._read()

    def identify(self, key: str | None, address: str) -> Caller | None:
        """The caller of a key, or an anonymous one from loopback if the policy allows; else None.

        address: of the peer, empty if a proxy sent the request: what a header says is never loopback.
        """
        now_s = self._clock()
        if now_s - self._checked_s >= CHECK_EVERY_S:
            self._checked_s = now_s
            self._check_file()
        if key is not None:
            return self._table.find(key)
        return _ANONYMOUS[address] if self.anonymous_loopback else None

    def rate_of(self, principal: str) -> float | None:
        """Rows a second of the caller's key; None without such a limit."""
        return self._table.rates.get(principal)

    def _check_file(self) -> None:
        """Reads the file again if it has changed, or lets a thread do so if it is large."""
        if self._reading or not self._changed():
            return
        if self._size <= INLINE_READ_BYTES:
            self._read()
            return
        self._reading = True
        threading.Thread(target=self._read, name="callers", daemon=True).start()

    def _changed(self) -> bool:
        """Whether there is a file in a state not seen so far. Without a file no key is known."""
        try:
            stat = _first_stat(self._var / KEYS_FILE, self._var / LIST_FILE)
        except (FileNotFoundError, NotADirectoryError):
            self._table, self._stamp = _KeyTable(), None
            return False
        before, self._size = self._stamp, stat.st_size
        self._stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size, (self._var / SECRET_FILE).exists())
        return self._stamp != before

    def _read(self) -> None:
        stamp = self._stamp
        try:
            convert_keys(self._var)
            content = (self._var / KEYS_FILE).read_bytes()
            secret = (self._var / SECRET_FILE).read_bytes()
            table = _read_appended(self._table, content, secret, self._only)
        except (OSError, ValueError, ArtifactError):
            log.exception("the callers on file cannot be read; those already known stay")
        else:
            if self._stamp == stamp:  # else the file has been removed meanwhile
                self._table = table
        finally:
            self._reading = False


def _first_stat(*paths: Path) -> os.stat_result:
    """Of the first of these files that exists. Raises FileNotFoundError where none does."""
    for path in paths[:-1]:
        try:
            return path.stat()
        except FileNotFoundError:
            pass
    return paths[-1].stat()


def _read_appended(table: _KeyTable, content: bytes, secret: bytes, only: frozenset[str] | None) -> _KeyTable:
    """The keys in the file; parses only appended lines if nothing before them has changed.

    Raises: ValueError, with the table as it was.
    """
    before = hashlib.sha256(memoryview(content)[: table.end]).digest()
    appended_only = table.end > 0 and (before, secret) == (table.digest, table.secret)
    start = table.end if appended_only else 0
    entries: Iterable[tuple[Key, Caller]] = _entries(content, start, table, only)
    end = content.rfind(b"\n") + 1
    digest = hashlib.sha256(memoryview(content)[:end]).digest()
    if appended_only:  # the same dictionaries: a copy would take as long as a new read
        entries = list(entries)
        new = replace(table, end=end, digest=digest, seen={})
    else:
        new = _KeyTable(secret, end=end, digest=digest)
    for key, caller in entries:
        new.put(key, caller)
    return new


def _entries(
    content: bytes, start: int, table: _KeyTable, only: frozenset[str] | None
) -> Iterator[tuple[Key, Caller]]:
    """Keys with their callers; reuses equal ones of the table, else all would be freed at once."""
    for n, key in enumerate(parse_keys(content, start), start=1):
        models = key.models if only is None else only if key.models is None else only & key.models
        caller, known = Caller(key.name, key.tier, key.scopes, models), table.by_hash.get(key.hash)
        yield key, known if known is not None and known == caller else caller
        if n % PAUSE_AFTER_KEYS == 0:
            time.sleep(PAUSE_S)  # a thread that only releases the interpreter's lock regains it at once


def _anonymous_caller(address: str) -> Caller | None:
    """The anonymous caller of a loopback address; None for other addresses."""
    return Caller(f"anonymous@{peer_address(address)}") if is_loopback(address) else None


_ANONYMOUS = BoundedCache(_anonymous_caller, entries=4096, longest=LONGEST_ADDRESS)
