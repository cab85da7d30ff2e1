"""What is done on the command line to a running gateway, in its audit log."""

from __future__ import annotations

import getpass
import time
from pathlib import Path

AUDIT_FILE = "decisions-command-line.jsonl"


def record_act(state: Path, act: str, on: str) -> None:
    """Writes an act into the audit log of a folder for state, with the name of the system's user."""
    from gateway.core.record import AdminAct
    from gateway.telemetry.json_lines import JsonLinesSink

    sink = JsonLinesSink(state / AUDIT_FILE)
    sink.accept([AdminAct(act, user_name(), on, "", True, time.time())])
    sink.flush(0)


def user_name() -> str:
    """The name of the system's user; "" where there is none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
