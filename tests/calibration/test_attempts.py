"""Attempts at calibration on the same rows are counted, whatever comes of them."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gateway.calibration.attempts import ATTEMPTS_FILE, record_attempt
from gateway.calibration.row_hashes import Hashes, row_hashes
from gateway.core.errors import ArtifactError


def hashes(rows: int, seed: int = 0) -> Hashes:
    return np.random.default_rng(seed).integers(0, 2**64, rows, np.uint64)


def lines(var: Path) -> list[bytes]:
    return (var / ATTEMPTS_FILE).read_bytes().splitlines()


POOL = hashes(20_000)
SHUFFLED = np.random.default_rng(1).permutation(POOL)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(POOL, SHUFFLED, id="shuffled"),
        pytest.param(POOL, SHUFFLED[:10_000], id="a random half"),
        pytest.param(SHUFFLED[:10_000], POOL, id="a superset"),
        pytest.param(SHUFFLED[:10_000], SHUFFLED[5_000:15_000], id="two random halves"),
        pytest.param(POOL, SHUFFLED[:1_000], id="a twentieth"),
        pytest.param(POOL, np.repeat(SHUFFLED[:2_000], 10), id="a tenth, repeated"),
        pytest.param(POOL, np.concatenate([SHUFFLED[:3_000], hashes(17_000, 2)]), id="a part replaced"),
        pytest.param(POOL[:100], POOL[90:190], id="few rows of small files"),
    ],
)
def test_another_attempt_on_overlapping_rows_is_counted(tmp_path: Path, first: Hashes, then: Hashes) -> None:
    assert record_attempt(tmp_path, first, "a", 0.0) == 1
    assert record_attempt(tmp_path, then, "b", 1.0) == 2
    assert record_attempt(tmp_path, first, "c", 2.0) == 3


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(hashes(20_000, 2), id="new rows"),
        pytest.param(np.concatenate([SHUFFLED[:100], hashes(19_900, 2)]), id="new rows with a few old ones"),
        pytest.param(hashes(50, 2), id="a few new rows"),
    ],
)
def test_attempts_on_other_rows_are_not_counted(tmp_path: Path, other: Hashes) -> None:
    record_attempt(tmp_path, POOL, "a", 0.0)
    assert record_attempt(tmp_path, other, "b", 1.0) == 1
    assert record_attempt(tmp_path, POOL, "c", 2.0) == 2


def test_the_same_calibration_once_more_is_no_other_attempt(tmp_path: Path) -> None:
    for time_s in range(3):
        assert record_attempt(tmp_path, POOL, "a", float(time_s)) == 1
    assert len(lines(tmp_path)) == 1
    record_attempt(tmp_path, POOL, "b", 3.0)
    assert record_attempt(tmp_path, POOL, "a", 4.0) == 2


def test_rows_of_a_file_are_found_again_by_their_hashes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1_000, 4)).astype(np.float32), rng.integers(0, 2, 1_000)
    half = rng.permutation(1_000)[:500]
    record_attempt(tmp_path, row_hashes({"x": x}, y), "a", 0.0)
    assert record_attempt(tmp_path, row_hashes({"x": x[half]}, y[half]), "b", 1.0) == 2
    assert record_attempt(tmp_path, row_hashes({"x": x + np.float32(1e-3)}, y), "c", 2.0) == 1


def test_hashes_on_file_stay_valid() -> None:
    """They are kept between versions of the gateway."""
    x = {"b": np.array([[1.5], [-2.0]], np.float32), "a": np.array([b"text", b""], object)}
    assert row_hashes(x, np.array([0, 3])).tolist() == [6914709917676233357, 17818329639201762581]


def test_the_file_is_for_its_owner_alone_and_small(tmp_path: Path) -> None:
    record_attempt(tmp_path / "var", POOL, "a", 0.0)
    file = (tmp_path / "var" / ATTEMPTS_FILE).stat()
    assert file.st_mode & 0o777 == 0o600
    assert file.st_size < 4_000


@pytest.mark.parametrize("keep", [0, 1, 100, -2, -1])
def test_a_last_line_cut_short_is_ignored_and_removed(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    record_attempt(tmp_path, POOL, "a", 0.0)
    record_attempt(tmp_path, POOL, "b", 1.0)
    first, second = lines(tmp_path)
    left = (second + b"\n")[:keep]
    (tmp_path / ATTEMPTS_FILE).write_bytes(first + b"\n" + left)
    assert record_attempt(tmp_path, POOL, "c", 2.0) == 2
    assert lines(tmp_path)[0] == first
    assert [b'"c"' in line for line in lines(tmp_path)] == [False, True]
    assert ("cut short" in caplog.text) == bool(left)


@pytest.mark.parametrize(
    "damaged",
    [
        b"[]",
        b"{",
        b"\xff",
        b'{"time_s": 0, "what": "a", "rows": 0, "hashes": "AAAAAAAAAAA="}',
        b'{"time_s": 0, "what": "a", "rows": 3, "hashes": "AAAAAAAAAAA="}',
        b'{"time_s": 0, "what": "a", "rows": 1, "hashes": "AAAAAAAA"}',
        b'{"time_s": 0, "what": "a", "rows": 1, "hashes": "!!!!!!!!!!!!"}',
        b'{"time_s": 0, "what": "a", "rows": 2, "hashes": "AQAAAAAAAAAAAAAAAAAAAA=="}',
    ],
)
def test_any_other_damaged_line_is_reported_and_nothing_recorded(tmp_path: Path, damaged: bytes) -> None:
    record_attempt(tmp_path, POOL, "a", 0.0)
    path = tmp_path / ATTEMPTS_FILE
    content = path.read_bytes() + damaged + b"\n"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is no record of an attempt") as caught:
        record_attempt(tmp_path, POOL, "b", 1.0)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(path), 2)
    assert path.read_bytes() == content


def test_a_blank_line_is_none(tmp_path: Path) -> None:
    record_attempt(tmp_path, POOL, "a", 0.0)
    with (tmp_path / ATTEMPTS_FILE).open("ab") as file:
        file.write(b"\n \n")
    assert record_attempt(tmp_path, POOL, "b", 1.0) == 2


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    (tmp_path / "var" / ATTEMPTS_FILE).mkdir(parents=True)
    for var in (tmp_path / "taken", tmp_path / "var"):
        with pytest.raises(ArtifactError, match="cannot be recorded") as caught:
            record_attempt(var, POOL, "a", 0.0)
        assert caught.value.problems[0].file == str(var / ATTEMPTS_FILE)


def test_a_disk_that_takes_part_of_a_line_is_reported_and_the_part_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_attempt(tmp_path, POOL, "a", 0.0)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:50]))
        with pytest.raises(ArtifactError, match="the disk is full"):
            record_attempt(tmp_path, POOL, "b", 1.0)
    assert record_attempt(tmp_path, POOL, "c", 2.0) == 2


def test_attempts_at_once_are_all_recorded(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda i: record_attempt(tmp_path, POOL, f"w{i}", 0.0), range(40)))
    assert sorted(counts) == list(range(1, 41))
    assert len(lines(tmp_path)) == 40


def test_the_oldest_of_a_thousand_attempts_are_dropped_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    record_attempt(tmp_path, POOL, "w0", 0.0)
    (line,) = lines(tmp_path)
    path = tmp_path / ATTEMPTS_FILE
    path.write_bytes(b"".join(line.replace(b'"w0"', b'"w%d"' % i) + b"\n" for i in range(999)))
    assert record_attempt(tmp_path, POOL, "w999", 1.0) == 1_000
    assert not caplog.records
    assert record_attempt(tmp_path, POOL, "new", 2.0) == 1_001
    assert "the oldest are dropped" in caplog.text
    kept = lines(tmp_path)
    assert len(kept) == 901
    assert (b'"w100"' in kept[0], b'"new"' in kept[-1]) == (True, True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert record_attempt(tmp_path, POOL, "newer", 3.0) == 902
