"""The callers in a file of keys: who may call, as the file says now.

`gateway key` writes the file (`keys.py`); a thread of a running gateway looks at it twice a second, so a
change is in force within a second. If lines were only appended, only they are parsed, a few keys at a time,
so that requests are served meanwhile. No request waits for a file.

No key is accepted while the file, or its secret, is damaged, unreadable, gone, or may be another user's
writing: `problem` says why, and is empty again once the file is mended. A key that was seen before is looked
up directly. The time that a wrong key takes reveals nothing: a dictionary compares texts only where their
hashes agree, under a secret of the process.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.access.key_table import Caller, KeyTable, read_appended
from gateway.access.keys import (
    KEYS_FILE,
    LIST_FILE,
    SECRET_FILE,
    Key,
    add_key,
    convert_keys,
    load_keys,
    read_secret,
)
from gateway.access.last_used import merge_last_used
from gateway.addresses import is_loopback, peer_address
from gateway.caching import BoundedCache
from gateway.core.errors import ArtifactError
from gateway.private_files import not_own, read_own

__all__ = ["KEYS_FILE", "SECRET_FILE", "Caller", "Callers", "Key", "add_key", "load_keys"]

CHECK_EVERY_S = 0.5
WRITE_USES_EVERY_S = 60.0
ANONYMOUS = "anonymous"
"""The principals of callers without a key begin with it, before `@` and their address; no key has an `@`."""
LONGEST_ADDRESS = 64
"""Longer than any IPv6 address with a zone. Longer texts are not cached."""
log = logging.getLogger(__name__)


class _Files(NamedTuple):
    """The files of keys as they lie on the disk: the file, the list of an earlier version, and the secret."""

    keys: os.stat_result | None
    list: os.stat_result | None
    secret: os.stat_result | None

    @classmethod
    def of(cls, folder: Path) -> _Files:
        """Those in a folder now. Raises OSError."""
        return cls(*(_stat(folder / name) for name in (KEYS_FILE, LIST_FILE, SECRET_FILE)))

    @property
    def stamp(self) -> tuple[tuple[int, ...] | None, ...]:
        """Differs after every change of a content, an owner or a mode."""
        return tuple(
            one and (one.st_mtime_ns, one.st_ctime_ns, one.st_ino, one.st_size, one.st_mode, one.st_uid)
            for one in self
        )


def is_anonymous(principal: str) -> bool:
    """Whether this is a caller without a key, one of perhaps very many addresses of one sender."""
    return principal.startswith(f"{ANONYMOUS}@")


def account_of(principal: str) -> str:
    """Under what a limit counts that callers without a key share: a limit for each address would be none."""
    return f"{ANONYMOUS}@" if is_anonymous(principal) else principal


class Callers:
    """The callers in one file of keys, which is read again when it changes.

    only: the one model that keys of this file open; None: those that each key names, or every one.
    problem: why no key is accepted now; empty if keys are. `anonymous_loopback` may be changed at any time.
    """

    def __init__(
        self,
        var: Path,
        *,
        anonymous_loopback: bool,
        only: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads the file, however large. Blocks: 0.6 s for 100,000 keys."""
        self.folder = var
        self.problem = ""
        self._only = None if only is None else frozenset({only})
        self.anonymous_loopback = anonymous_loopback
        self._clock, self._wall_clock = clock, wall_clock
        self._stamp: object = None
        self._table = KeyTable()
        self._used: dict[str, float] = {}
        self._took_uses_s = -WRITE_USES_EVERY_S
        self.check()

    def identify(self, key: str | None, address: str) -> Caller | None:
        """The caller of a key, or an anonymous one from loopback if the policy allows; else None.

        address: of the peer, empty if a proxy sent the request: what a header says is never loopback.
        """
        if key is None:
            return _ANONYMOUS[address] if self.anonymous_loopback else None
        caller = self._table.find(key)
        if caller is None:
            return None
        now_s = self._wall_clock()
        if caller.expires_s is not None and now_s >= caller.expires_s:
            return None
        self._used[caller.principal] = now_s
        return caller

    def rate_of(self, principal: str) -> float | None:
        """Rows a second of the caller's key; None without such a limit."""
        return self._table.rates.get(principal)

    def tier_of(self, principal: str) -> str:
        """The disclosure tier of the caller's key; that of anonymous callers without one."""
        caller = self._table.by_hash.get(self._table.hash_of.get(principal, ""))
        return ANONYMOUS if caller is None else caller.tier

    def take_uses(self, *, at_once: bool = False) -> dict[str, float]:
        """When keys were used since the last call, by name, for `write_uses`; at most once a minute."""
        now_s = self._clock()
        if not self._used or not (at_once or now_s - self._took_uses_s >= WRITE_USES_EVERY_S):
            return {}
        self._took_uses_s = now_s
        used, self._used = self._used, {}
        return used

    def write_uses(self, used: dict[str, float]) -> None:
        """Writes when keys were last used. Blocks; may run in a thread. Logs what fails."""
        try:
            if used and not self.problem:
                merge_last_used(self.folder, used, self._table.hash_of)
        except OSError as error:
            log.warning("the last uses of keys cannot be written: %s", _text(error))

    def check(self) -> None:
        """Reads the files if they have changed. Never raises; blocks: one call at a time, in a thread.

        Cost: 5 us if they are the same.
        """
        try:
            files = _Files.of(self.folder)
        except OSError as error:
            self._fail(_text(error))
            self._stamp = None
            return
        if files.stamp == self._stamp:
            return
        self._stamp = files.stamp
        if why := self._what_is_wrong(files):
            self._fail(why)
        elif files.keys is None and files.list is None:
            self._use(KeyTable())
        else:
            self._read()

    def _what_is_wrong(self, files: _Files) -> str:
        """Why these files cannot be read; empty if they can be, or if no key has ever been made."""
        for name, held in ((KEYS_FILE, files.keys), (LIST_FILE, files.list), (SECRET_FILE, files.secret)):
            if held is not None and (why := not_own(held)):
                return f"{self.folder / name} {why}"
        if files.keys is None and files.list is None and (files.secret or self._table.by_hash):
            return f"{self.folder / KEYS_FILE} is gone: restore it, or make a new key"
        return ""

    def _read(self) -> None:
        """Reads the files and uses what they say, unless they change meanwhile: then the next call does."""
        try:
            convert_keys(self.folder)
            stamp = _Files.of(self.folder).stamp
            content = read_own(self.folder / KEYS_FILE)
            table = read_appended(self._table, content, read_secret(self.folder), self._only)
            self._stamp = stamp if _Files.of(self.folder).stamp == stamp else None
        except OSError as error:
            self._fail(_text(error))
            self._stamp = None  # tried again, since nothing on the disk has to change for it to succeed
        except (ValueError, ArtifactError) as error:
            what = str(error)
            self._fail(what if str(self.folder) in what else f"{self.folder / KEYS_FILE}: {what}")
        else:
            if self._stamp is not None:
                self._use(table)

    def _use(self, table: KeyTable) -> None:
        if self.problem:
            log.warning("keys are accepted again: %s was mended", self.folder / KEYS_FILE)
        self._table, self.problem = table, ""

    def _fail(self, why: str) -> None:
        """Forgets every key. Logs a problem once."""
        self._table = KeyTable()
        if why != self.problem:
            log.error("no key is accepted: %s", why)
        self.problem = why


def _text(error: OSError) -> str:
    return f"{error.filename}: {error.strerror or error}"


def _stat(path: Path) -> os.stat_result | None:
    """Of the file itself, not of what a link leads to; None where there is none. Raises OSError."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _anonymous_caller(address: str) -> Caller | None:
    """The anonymous caller of a loopback address; None for other addresses."""
    return Caller(f"{ANONYMOUS}@{peer_address(address)}") if is_loopback(address) else None


_ANONYMOUS = BoundedCache(_anonymous_caller, entries=4096, longest=LONGEST_ADDRESS)
