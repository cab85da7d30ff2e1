"""The keys of a file in memory, each with its caller, and how the table follows a file that grows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from gateway.access.keys import Key, hash_of_key, parse_keys

PAUSE_AFTER_KEYS, PAUSE_S = 100, 0.0002
MAX_SEEN_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. Budgets, reviews and the audit log are kept by `principal`.

    expires_s: Unix time from which on its key is not accepted; None for never.
    """

    principal: str
    tier: str = "anonymous"
    scopes: frozenset[str] = frozenset({"infer"})
    models: frozenset[str] | None = None
    expires_s: float | None = None

    def has_any(self, scopes: frozenset[str]) -> bool:
        """Whether the caller has at least one of these scopes; False if there are none."""
        return not scopes.isdisjoint(self.scopes)

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True, eq=False)
class KeyTable:
    """The content of the file. end: offset after the last whole line; digest: of the bytes before it."""

    secret: bytes = b""
    by_hash: dict[str, Caller] = field(default_factory=dict)
    hash_of: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    end: int = 0
    digest: bytes = b""
    seen: dict[str, Caller] = field(default_factory=dict)

    def find(self, key: str) -> Caller | None:
        """The caller of a key, expired or not. Cost: 0.1 us for one that was seen before, else 2 us."""
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


def read_appended(table: KeyTable, content: bytes, secret: bytes, only: frozenset[str] | None) -> KeyTable:
    """The keys in the file; parses only appended lines if nothing before them has changed.

    Raises: ValueError naming the line, with the table as it was.
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
        new = KeyTable(secret, end=end, digest=digest)
    for key, caller in entries:
        new.put(key, caller)
    return new


def _entries(
    content: bytes, start: int, table: KeyTable, only: frozenset[str] | None
) -> Iterator[tuple[Key, Caller]]:
    """Keys with their callers; reuses equal ones of the table, else all would be freed at once."""
    for n, key in enumerate(parse_keys(content, start), start=1):
        models = key.models if only is None else only if key.models is None else only & key.models
        expires_s = None if key.expires is None else key.expires.timestamp()
        caller = Caller(key.name, key.tier, key.scopes, models, expires_s)
        known = table.by_hash.get(key.hash)
        yield key, known if known is not None and known == caller else caller
        if n % PAUSE_AFTER_KEYS == 0:
            time.sleep(PAUSE_S)  # a thread that only releases the interpreter's lock regains it at once
