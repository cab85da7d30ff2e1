"""A signal to stop is never lost, also where Python drops the exception that it raises."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

DROPPED = """
import os, signal, sys
from gateway.stop_signals import raise_at_stop_signals, raise_if_stopped

raise_at_stop_signals()
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), int(sys.argv[1])))
if os.fork() == 0:
    os._exit(0)
os.wait()
print("the exception was dropped", flush=True)
try:
    raise_if_stopped()
except KeyboardInterrupt:
    print("and told afterwards")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_python_drops_is_told_afterwards(number: signal.Signals) -> None:
    """As in a hook of fork or a finalizer, of which Ray has many while it starts."""
    command = [sys.executable, "-c", DROPPED, str(int(number))]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Exception ignored" in told.stderr
    assert told.stdout.splitlines() == ["the exception was dropped", "and told afterwards"], told.stderr


def test_without_a_signal_nothing_is_raised() -> None:
    code = "from gateway.stop_signals import *; raise_at_stop_signals(); raise_if_stopped(); print('on')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "on\n"
