"""The latch against a model: several readers and writers of a file that is damaged, mended and deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.errors import ArtifactError
from gateway.serving.latch import Latch
from gateway.serving.latch_file import LatchFile
from gateway.serving.stops import EVERY, Scope, Stop, Stops

AT = datetime(2027, 1, 31, 12, tzinfo=UTC)
MODELS, RUNGS = ("letters", "fashion"), ("primary", "small")
SCOPES = [Scope(model, rung) for model in (EVERY, *MODELS) for rung in (None, *RUNGS)]
DAMAGE = [b"", b"[", b"{}", b"[1]", b'"primary"', b"\xff", b'[{"model": "letters"}]']


def stop_of(scope: Scope) -> Stop:
    return Stop(model=scope.model, rung=scope.rung, by="ada", at=AT)


class LatchWorld(RuleBasedStateMachine):
    """readers: replicas; saved: the scopes in the file; damaged, gone: what has happened to it."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.file = LatchFile(Path(self.folder.name), shared=True)
        self.readers = [Latch(self.file), Latch(self.file)]
        self.saved: set[Scope] = set()
        self.damaged = self.gone = False

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def look(self) -> None:
        for reader in self.readers:
            reader.look()

    @rule(scope=st.sampled_from(SCOPES), at=st.integers(0, 1))
    def stop(self, scope: Scope, at: int) -> None:
        reader = self.readers[at]
        reader.stop_here(stop_of(scope))
        assert all(reader.now.of(model).has(rung) for model, rung in covered(scope)), "before it is saved"
        self.change(scope, lambda: reader.save(stop_of(scope)))

    @rule(scope=st.sampled_from(SCOPES), at=st.integers(0, 1))
    def resume(self, scope: Scope, at: int) -> None:
        self.change(scope, lambda: self.readers[at].resume(scope), resumed=True)

    def change(self, scope: Scope, write: Callable[[], None], *, resumed: bool = False) -> None:
        if self.damaged and scope != Scope():
            with pytest.raises(ArtifactError, match=r"stops\.json: cannot be read .* `gateway resume"):
                write()
            if not resumed:  # it stays in force where it was asked for: the model forgets the reader
                self.restart()
        else:
            write()
            self.saved = (set() if self.damaged else self.saved) - {scope} | (set() if resumed else {scope})
            self.damaged = self.gone = False
        self.look()

    @rule(content=st.sampled_from(DAMAGE))
    def damage(self, content: bytes) -> None:
        self.file.folder.mkdir(exist_ok=True, mode=0o700)
        self.file.path.write_bytes(content)
        self.damaged, self.gone, self.saved = True, False, set()
        self.look()

    @precondition(lambda self: not self.damaged)
    @rule()
    def delete(self) -> None:
        """A running replica keeps what it has read; the next start knows of no stop."""
        self.file.path.unlink(missing_ok=True)
        self.look()
        before = [reader.now for reader in self.readers]
        assert all({one.scope for one in now.stops} == self.saved for now in before)
        self.restart()
        self.saved = set()

    @rule()
    def restart(self) -> None:
        self.readers = [Latch(self.file), Latch(self.file)]

    @rule(at=st.integers(0, 1))
    def hold_and_release(self, at: int) -> None:
        """What holds in one process alone: of a lease that has expired."""
        before = [reader.now for reader in self.readers]
        self.readers[at].hold("no controller")
        assert self.readers[at].now.of("letters").why == "no controller"
        assert self.readers[1 - at].now is before[1 - at]
        self.readers[at].hold("")
        assert [reader.now for reader in self.readers] == before

    @invariant()
    def every_reader_has_stopped_what_the_model_says(self) -> None:
        for reader in getattr(self, "readers", ()):
            for model in MODELS:
                for rung in RUNGS:
                    expected = self.damaged or any((model, rung) in covered(one) for one in self.saved)
                    assert reader.now.of(model).has(rung) == expected, (model, rung)
            assert bool(reader.now.problem) == self.damaged


def covered(scope: Scope) -> set[tuple[str, str]]:
    return {
        (model, rung)
        for model in MODELS
        for rung in RUNGS
        if scope.model in (EVERY, model) and scope.rung in (None, rung)
    }


TestLatch = LatchWorld.TestCase
TestLatch.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_file_stops_everything_and_says_how_it_is_mended(tmp_path: Path, content: bytes) -> None:
    file = LatchFile(tmp_path)
    file.path.write_bytes(content)
    problem = file.read().problem
    assert problem.startswith(f"{file.path}: ") and f"`gateway resume {tmp_path.parent}`" in problem
    assert "\n" not in problem
    file.resume(Scope())
    assert file.read() == Stops()


def test_a_file_that_others_may_write_stops_everything(tmp_path: Path) -> None:
    file = LatchFile(tmp_path)
    file.stop(stop_of(Scope(EVERY, "small")))
    file.path.chmod(0o666)
    assert "may be written by others" in file.read().problem


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    latches = [Latch(LatchFile(tmp_path)) for _ in range(8)]
    threads = [
        threading.Thread(target=latch.save, args=(stop_of(Scope(EVERY, f"rung-{i}")),))
        for i, latch in enumerate(latches)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {one.rung for one in LatchFile(tmp_path).read().stops} == {f"rung-{i}" for i in range(8)}


def test_a_stop_that_cannot_be_written_holds_here_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    latch = Latch(LatchFile(blocked))
    blocked.write_text("a file where the folder should be")
    latch.stop_here(stop_of(Scope()))
    with pytest.raises(OSError):
        latch.save(stop_of(Scope()))
    blocked.unlink()
    latch.look()
    assert latch.now.of("letters").why
    latch.resume(Scope())
    assert not latch.now.of("letters").why


def test_another_replicas_resumption_lifts_what_could_not_be_written_here(tmp_path: Path) -> None:
    here, there = Latch(LatchFile(tmp_path)), Latch(LatchFile(tmp_path))
    here.stop_here(stop_of(Scope()))
    there.resume(Scope())
    here.look()
    assert here.now.of("letters").why, "the file alone does not lift it"
    here.follow_resume(Scope())
    assert not here.now.of("letters").why
