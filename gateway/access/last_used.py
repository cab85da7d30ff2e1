"""When each key was last used, in the private file `var/last_used.json`: Unix seconds by the caller's name.

A running gateway notes every use in memory and writes at most once a minute; replicas merge into one file.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from pathlib import Path

import orjson

from gateway.private_files import read_own, write_lock, write_private_file

LAST_USED_FILE = "last_used.json"
log = logging.getLogger(__name__)


def read_last_used(var: Path) -> dict[str, int]:
    """Unix seconds of the last use, by name. A missing or invalid file counts as empty."""
    try:
        held = orjson.loads(read_own(var / LAST_USED_FILE))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, and begins anew: %s", var / LAST_USED_FILE, error)
        return {}
    pairs = held.items() if isinstance(held, dict) else ()
    return {name: at for name, at in pairs if isinstance(at, int) and not isinstance(at, bool)}


def merge_last_used(var: Path, used: dict[str, float], known: Container[str]) -> None:
    """Writes the later of what is on file and these uses, for the names that are still known.

    Raises:  OSError. Cost: a read, a write and two fsyncs; blocks while another process holds the lock.
    """
    with write_lock(var):
        merged = read_last_used(var)
        for name, at_s in used.items():
            merged[name] = max(int(at_s), merged.get(name, 0))
        kept = {name: at for name, at in merged.items() if name in known}
        write_private_file(var / LAST_USED_FILE, orjson.dumps(kept, option=orjson.OPT_SORT_KEYS))
