"""The file of a ledger: nothing that was granted is forgotten, and no step of a clock makes or takes a
budget."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger import journal as journal_module
from gateway.ledger.journal import Journal, MachineClock
from gateway.ledger.ledger import Batch, Grant, Want
from gateway.ledger.local import LocalLedger

KEY = b"k" * 16
PERIOD_S, TOLERANCE_S = 0.1, 10.0
BURST = 100.0


@dataclass
class Machine:
    """A machine whose clocks a test sets. wall_s plays no part: nothing of the journal reads it."""

    running_s: float = 5000.0
    boot: bytes = b"boot one".ljust(36)

    def clock(self) -> MachineClock:
        return MachineClock(self.boot, lambda: self.running_s)

    def reboot(self) -> None:
        self.running_s, self.boot = 3.0, os.urandom(18).hex().encode()


class Process:
    """Runs of a ledger's process on one machine; `crash` closes nothing but the lock, as a kill does."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.path, self.machine, self.number = folder / "state" / "budgets", machine, 0
        self.journal = Journal(self.path, machine.clock())

    def ask(self, units: float, owed: float = 0.0, key: bytes = KEY) -> Grant:
        self.number += 1
        batch = Batch(b"r" * 16, self.number, (Want(key, units, owed, PERIOD_S, TOLERANCE_S),))
        grants, changed = self.journal.book.lease(batch, self.journal.now_s())
        self.journal.append(batch.replica, batch.number, changed)
        return grants[0]

    def crash(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path, self.machine.clock())


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """With full buckets."""
    process = Process(tmp_path, Machine())
    process.machine.running_s += TOLERANCE_S
    return process


def test_debts_are_kept_over_a_crash_and_paid_off_while_the_machine_runs(process: Process) -> None:
    assert process.ask(70, owed=20) == pytest.approx((70, 10))
    process.crash()
    assert process.ask(0).left == pytest.approx(10)
    process.machine.running_s += 3
    process.crash()
    assert process.ask(1000).units == pytest.approx(40)


def test_a_batch_that_was_done_before_the_crash_is_not_done_again(process: Process) -> None:
    process.ask(10, owed=20)
    process.crash()
    process.number -= 1
    assert process.ask(10, owed=20) == pytest.approx((0, 70))
    process.ask(0, owed=-5)
    process.crash()
    process.number -= 1
    assert process.ask(0, owed=-5).left == pytest.approx(75)


def test_after_another_start_of_the_machine_debts_are_as_they_were_and_end_in_time(process: Process) -> None:
    process.ask(0, owed=150)
    process.machine.running_s += 4
    process.ask(0)
    process.machine.reboot()
    process.crash()
    assert process.ask(0).left == pytest.approx(-10)
    process.machine.running_s += 11
    assert process.ask(1000).units == pytest.approx(100), "no caller is locked out"


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30), st.floats(0, 120)), max_size=12))
def test_restarts_never_add_to_what_the_machines_running_time_has_paid(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, float, float]]
) -> None:
    process = Process(tmp_path_factory.mktemp("journal"), Machine())
    ran_s = granted = 0.0
    for reboots, later_s, units in steps:
        process.machine.running_s += later_s
        ran_s += later_s
        granted += process.ask(units).units
        if reboots:
            process.machine.reboot()
        process.crash()
    assert granted <= ran_s / PERIOD_S + 1e-6


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "one bit", "other"])
def test_a_file_that_has_forgotten_something_gives_no_burst(process: Process, damage: str) -> None:
    process.ask(30)
    process.ask(0, owed=300, key=b"o" * 16)
    content = process.path.read_bytes()
    flipped = bytearray(content)
    flipped[-4] ^= 1
    after = {"empty": b"", "cut": content[:-1], "longer": content + b"\0", "one bit": bytes(flipped)}
    process.path.write_bytes(after.get(damage, b"another file\n"))
    if damage == "missing":
        process.path.unlink()
    process.crash()
    assert process.ask(1000).units == pytest.approx(0, abs=1e-6)
    process.machine.running_s += 3
    process.crash()
    assert process.ask(1000).units == pytest.approx(30), "it fills at its rate"
    process.machine.running_s += TOLERANCE_S
    assert process.ask(1000).units == pytest.approx(BURST)


def test_what_can_be_read_of_a_damaged_file_holds(process: Process) -> None:
    process.ask(0, owed=500)
    process.path.write_bytes(process.path.read_bytes() + b"rest of a frame")
    process.crash()
    assert process.ask(0).left == pytest.approx(-400)


def test_it_is_written_anew_before_it_grows_without_end(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_BYTES", 20_000)
    for i in range(3000):
        process.ask(1, key=(i % 50).to_bytes(16))
    assert process.path.stat().st_size < 50_000
    left = process.ask(0).left
    process.crash()
    assert process.ask(0).left == left
    assert process.ask(0, key=bytes(16)).left == pytest.approx(BURST - 60)


def test_one_process_has_the_file_and_only_its_owner_reads_it(process: Process) -> None:
    with pytest.raises(BlockingIOError):
        Journal(process.path)
    assert process.path.stat().st_mode & 0o777 == 0o600
    assert process.path.parent.stat().st_mode & 0o777 == 0o700


GRANT = """
import asyncio, sys
from pathlib import Path
from gateway.ledger.ledger import Batch, Want
from gateway.ledger.local import LocalLedger

async def main():
    ledger, number = LocalLedger(Path(sys.argv[1])), 0
    while True:
        number += 1
        wants = tuple(Want(bytes([i]) * 16, 1.0, 0.0, 3600.0, 3.6e9) for i in range(8))
        grants = await ledger.lease(Batch(sys.argv[2].encode(), number, wants))
        print(sum(grant.units > 0 for grant in grants), flush=True)

asyncio.run(main())
"""
"""Leases one unit of each of eight buckets at a time, and says so once it has it."""


def test_a_ledger_killed_while_it_grants_forgets_no_grant_that_arrived(tmp_path: Path) -> None:
    path = tmp_path / "state" / "budgets"
    ledger = LocalLedger(path)
    ledger._journal.book.floor_s = -1e12  # full buckets
    ledger._journal.compact()
    asyncio.run(ledger.close())
    heard, rng = 0, random.Random(1)
    for life in range(6):
        command = [sys.executable, "-c", GRANT, str(path), f"replica {life:08d}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randint(1, 60)):
                heard += int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            heard += sum(map(int, process.stdout.read().split()))
    journal = Journal(path)
    now_s = journal.now_s()
    _, tats_s, _ = journal.book.content()
    charged = sum((tat_s - now_s) / 3600 for tat_s in tats_s)
    assert heard <= charged + 0.1 <= heard + 6 * 8 + 0.2, "at most one batch a kill did not arrive"
