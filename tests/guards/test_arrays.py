"""Fitted objects as arrays: the round trip is bit-identical, and what does not fit is named, not guessed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.arrays import Arrays, load, pack, read_only, save, unpack


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    weights: NDArray[np.float32]
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Twig:
    level: int


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    labels: NDArray[np.int64]
    anything: NDArray[Any]
    height: float
    rings: int
    alive: bool
    crown: Leaf
    branches: tuple[Leaf | Twig, ...]
    pair: tuple[Twig, Leaf]


def tree() -> Tree:
    odd = np.array([0.1, -0.0, np.inf, np.nan, 1e-42], np.float32)
    leaf = Leaf(read_only(odd), "grün")
    return Tree(
        read_only(np.arange(3)),
        read_only(np.eye(2)),
        0.1,
        -7,
        True,
        leaf,
        (leaf, Twig(2), leaf),
        (Twig(1), leaf),
    )


def same(a: object, b: object) -> bool:
    one, two = pack("t", a), pack("t", b)
    return list(one) == list(two) and all(
        one[k].dtype == two[k].dtype and one[k].shape == two[k].shape and one[k].tobytes() == two[k].tobytes()
        for k in one
    )


def test_round_trip_through_a_file_is_bit_identical(tmp_path: Path) -> None:
    save(tmp_path / "t.npz", pack("t", tree()))
    back = unpack(Tree, "t", load(tmp_path / "t.npz"))
    assert same(back, tree())
    assert (back.height, back.rings, back.alive, back.crown.kind) == (0.1, -7, True, "grün")
    assert [type(b) for b in back.branches] == [Leaf, Twig, Leaf]


def test_what_is_read_back_cannot_be_written_to() -> None:
    writable = {key: array.copy() for key, array in pack("t", tree()).items()}
    back = unpack(Tree, "t", writable)
    with pytest.raises(ValueError, match="read-only"):
        back.labels[0] = 1


def test_frozen_copies_so_that_the_source_cannot_reach_in() -> None:
    source = np.arange(3)
    held = read_only(source)
    source[0] = 9
    assert held[0] == 0
    assert not held.flags.writeable


def test_same_arrays_give_the_same_bytes_whatever_their_order_or_the_time(tmp_path: Path) -> None:
    arrays = pack("t", tree())
    save(tmp_path / "a.npz", arrays)
    os.utime(tmp_path / "a.npz", (0, 0))
    save(tmp_path / "b.npz", dict(reversed(arrays.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert b"\x00\x00\x21\x00" in (tmp_path / "a.npz").read_bytes()[:30]  # 1980-01-01 00:00 in DOS time


def test_numpy_itself_can_read_the_file(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", {"x/y": np.arange(4.0)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive["x/y"].tolist() == [0, 1, 2, 3]


def edited(**changes: Any) -> Arrays:
    arrays = pack("t", tree())
    for key, value in changes.items():
        arrays[key.replace("__", "/").replace("N", "#")] = value
    return arrays


@pytest.mark.parametrize("key", sorted(pack("t", tree())))
def test_a_missing_array_is_named(key: str) -> None:
    arrays = pack("t", tree())
    del arrays[key]
    with pytest.raises(ValueError, match=rf"^{key}: missing"):
        unpack(Tree, "t", arrays)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (edited(t__labels=np.arange(3.0)), "t/labels: holds float64 where int64"),
        (edited(t__crown__weights=np.arange(3.0)), "t/crown/weights: holds float64 where float32"),
        (edited(t__height=np.array(1)), r"t/height: holds int64\[\] where one float"),
        (edited(t__height=np.array([1.0])), r"t/height: holds float64\[1\] where one float"),
        (edited(t__alive=np.array(1)), "t/alive: .* where one bool"),
        (edited(t__crown__kind=np.array(1)), "t/crown/kind: .* where one str"),
        (edited(t__crownN=np.array("Twig")), r"t/crown: holds a 'Twig' where one of \['Leaf'\]"),
        (
            edited(t__branches__1N=np.array("Path")),
            r"t/branches/1: holds a 'Path' where one of \['Leaf', 'Twig'\]",
        ),
        (edited(t__pairN=np.array(3)), "t/pair: holds 3 items where 2"),
    ],
)
def test_an_array_of_another_type_is_named(arrays: Arrays, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(Tree, "t", arrays)


def test_what_has_no_array_form_is_refused() -> None:
    with pytest.raises(ValueError, match="t: a dict has no array form"):
        pack("t", {"a": 1})
    with pytest.raises(ValueError, match="has no array form"):
        pack("t", Leaf)


def test_python_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, {"good": np.zeros(1)})
    with pytest.raises(ValueError, match="Object arrays"):
        save(path, {"good": np.ones(1), "worse": np.array([object()])})
    assert load(path)["good"].tolist() == [0.0], "the file that was there is untouched"
    np.savez(path, allow_pickle=True, good=np.zeros(1), evil=np.array([print]))
    with pytest.raises(ValueError, match=r"a\.npz: not a readable \.npz of plain arrays") as refused:
        load(path)
    assert "(evil holds Python objects); save text with astype(str)" in str(refused.value)
    assert "calibrate again" not in str(refused.value)


@pytest.mark.parametrize("damage", ["garbage", "cut short", "flipped", "empty"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "guards.npz"
    save(path, {"a": np.random.default_rng(0).standard_normal(500)})
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "garbage": b"hello",
            "cut short": whole[:middle],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(ValueError, match=r"guards\.npz: not a readable .*; calibrate again$"):
        load(path)
    with pytest.raises(ValueError, match=r"guards\.npz: not a readable .*; save it anew$"):
        load(path, "save it anew")
