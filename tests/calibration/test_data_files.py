"""Files of rows: every format gives the same arrays, and what is wrong is named by line and column."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from gateway.calibration.data_files import load_columns
from gateway.calibration.parquet_file import parquet_columns

NAN = float("nan")


def csv_file(folder: Path, content: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet_file(folder: Path, **columns: Any) -> Path:
    path = folder / "rows.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    return path


def only_column(folder: Path, *cells: str) -> np.ndarray[Any, Any]:
    content = "a,b\n" + "".join(f"{cell},1\n" for cell in cells)
    return load_columns(csv_file(folder, content))["a"]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (("1", "-2", " 0 "), "int64", [1, -2, 0]),
        (("9223372036854775807", "0"), "int64", [2**63 - 1, 0]),
        (("9223372036854775808", "0"), "uint64", [2**63, 0]),
        (("9223372036854775808", "-1"), "float64", [2.0**63, -1]),
        (("1", "", "3"), "float64", [1, NAN, 3]),
        (("0.5", ".5", "5.", "+1", "-1e-3", "1E5"), "float64", [0.5, 0.5, 5, 1, -0.001, 1e5]),
        (("NaN", "-inf", "1"), "float64", [NAN, -np.inf, 1]),
        (("", ""), "float64", [NAN, NAN]),
        (("True", "false"), "bool", [True, False]),
        (("True", ""), "<U4", ["True", ""]),
        (("007", "1"), "<U3", ["007", "1"]),
        (("1_000", "1"), "<U5", ["1_000", "1"]),
        (("٣", "1"), "<U1", ["٣", "1"]),
        ((" a", "jä"), "<U2", [" a", "jä"]),
        (('"x, ""y"""', ""), "<U6", ['x, "y"', ""]),
        (('"two\nlines"', "b"), "<U9", ["two\nlines", "b"]),
        (("line\u2028separator", "b"), "<U14", ["line\u2028separator", "b"]),
    ],
)
def test_a_column_of_a_csv_is_what_its_cells_are(
    tmp_path: Path, cells: tuple[str, ...], kind: str, values: list[Any]
) -> None:
    found = only_column(tmp_path, *cells)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, np.array(values))


def test_columns_that_are_text_stay_as_they_stand(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "zip,n\n01234,1\n1.50,\n,3\n")
    found = load_columns(path, text=("zip",))
    assert found["zip"].tolist() == ["01234", "1.50", ""]
    assert found["n"].dtype == np.float64


@pytest.mark.parametrize("content", ["b,a\r\n1,x\r\n2,y\r\n", "\ufeffb,a\n1,x\n\n2,y", "b,a\n1,x\n2,y\n\n"])
def test_line_ends_empty_lines_and_a_byte_order_mark_change_nothing(tmp_path: Path, content: str) -> None:
    found = load_columns(csv_file(tmp_path, content))
    assert list(found) == ["b", "a"]
    assert [array.tolist() for array in found.values()] == [[1, 2], ["x", "y"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1: is empty; the first line must name the columns"),
        ("\na,b\n1,2\n", "line 1: is empty; the first line must name the columns"),
        ("a,b\n", "holds a header and no rows"),
        ("1.5,2\n2,3\n", "line 1: holds numbers; the first line must name the columns"),
        (
            ",a\n0,1\n",
            "line 1: column 1 has no name; pandas saves its index so: leave it out with index=False",
        ),
        ("a,b, a,b\n1,2,3,4\n", "line 1: columns 2 and 4 are both named 'b'"),
        ("a;b\n1;2\n", "line 1: columns are separated by semicolons; save it with commas"),
        ("a\tb\n1\t2\n", "line 1: columns are separated by tabs; save it with commas"),
        ("a,b\n1,2\n3\n", "line 3: has 1 cells; the header names 2 columns"),
        ('a,b\n"1\n",2\n3,4,5\n', "line 4: has 3 cells; the header names 2 columns"),
        ('a,b\n1,"2\n', "line 2: is not CSV: unexpected end of data"),
        (b"a,b\n1,x\n2,d\xe9j\n", "line 3: byte 4 (0xe9) is not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfd\xe9j,b\n1,2\n", "line 1: byte 2 (0xe9) is not UTF-8; save the file as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: is UTF-16; save it as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    path = csv_file(tmp_path, content)
    with pytest.raises(ValueError) as refused:
        load_columns(path)
    assert str(refused.value) == f"{path}: {says}"


def test_parquet_columns_are_the_arrays_of_their_types(tmp_path: Path) -> None:
    path = parquet_file(
        tmp_path,
        whole=pyarrow.array([1, 2], pyarrow.int32()),
        large=pyarrow.array([2**63, 0], pyarrow.uint64()),
        gaps=pyarrow.array([1, None], pyarrow.int8()),
        real=pyarrow.array([0.5, None], pyarrow.float32()),
        yes=pyarrow.array([True, False]),
        text=pyarrow.array(["jä", None]),
        category=pyarrow.array(["u", "v"]).dictionary_encode(),
        empty=pyarrow.nulls(2),
        scores=pyarrow.array([[0.25, 0.75], [1, 0]]),
        fixed=pyarrow.array([[1, 2, 3], [4, 5, 6]], pyarrow.list_(pyarrow.int64(), 3)),
    )
    found = load_columns(path)
    wanted = {
        "whole": np.array([1, 2]),
        "large": np.array([2**63, 0], np.uint64),
        "gaps": np.array([1, NAN]),
        "real": np.array([0.5, NAN]),
        "yes": np.array([True, False]),
        "text": np.array(["jä", ""]),
        "category": np.array(["u", "v"]),
        "empty": np.array([NAN, NAN]),
        "scores": np.array([[0.25, 0.75], [1, 0]]),
        "fixed": np.array([[1, 2, 3], [4, 5, 6]]),
    }
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pyarrow.array([1, 2], pyarrow.timestamp("us")), "is timestamp[us]: save it as a number or as text"),
        (pyarrow.array([[1.0], [1.0, 2.0]]), "holds lists of several lengths, or empty ones"),
        (pyarrow.array([[1.0], None]), "holds lists of several lengths, or empty ones"),
        (pyarrow.array([{"a": 1}, {"a": 2}]), "is struct<a: int64>: save it as a number or as text"),
    ],
)
def test_a_parquet_column_of_another_type_is_named(tmp_path: Path, column: Any, says: str) -> None:
    path = parquet_file(tmp_path, when=column)
    with pytest.raises(ValueError) as refused:
        load_columns(path)
    assert str(refused.value) == f"{path}: column 'when' {says}"


def test_a_broken_or_empty_parquet_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pq"
    broken.write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"broken\.pq: is not Parquet: "):
        load_columns(broken)
    with pytest.raises(ValueError, match=r"rows\.parquet: holds no rows"):
        load_columns(parquet_file(tmp_path, a=pyarrow.array([], pyarrow.int64())))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet_file(tmp_path, a=[1, 2])
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # the import fails, as where it is not installed
    with pytest.raises(
        ValueError, match=r"rows\.parquet: .*pip install 'failsafe-gateway\[parquet\]'; or save"
    ):
        load_columns(path)


def test_an_npz_holds_arrays_of_any_shape_in_their_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.NPZ.npz", x=np.zeros((2, 3, 4)), y=np.arange(2), a=np.array(["u", "v"]))
    found = load_columns(tmp_path / "rows.NPZ.npz")
    assert [(name, array.shape) for name, array in found.items()] == [
        ("x", (2, 3, 4)),
        ("y", (2,)),
        ("a", (2,)),
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rows.npy", "an .npy holds one array without a name; save one with np.savez("),
        ("rows.xlsx", "'.xlsx' is no format of rows; give .npz, .csv or .parquet"),
        ("rows", "has no suffix; give .npz, .csv or .parquet"),
        ("rows.npz", "not a readable .npz of plain arrays (File is not a zip file); save one with np.savez("),
    ],
)
def test_another_file_is_named_with_what_to_give(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError) as refused:
        load_columns(tmp_path / name)
    assert str(refused.value).startswith(f"{tmp_path / name}: {says}")


@pytest.mark.parametrize("name", ["none.csv", "none.npz", "none.parquet"])
def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        load_columns(tmp_path / name)


def test_a_parquet_file_that_unpacks_to_more_than_allowed_is_refused(tmp_path: Path) -> None:
    """Equal texts are packed into one: 60 MB of them make a file of a few kilobytes."""
    path = parquet_file(tmp_path, x=["a" * 6000] * 10_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="over 1000000 bytes unpacked; give fewer rows"):
        parquet_columns(path, 1_000_000)
    assert len(parquet_columns(path, 100_000_000)["x"]) == 10_000


@pytest.mark.parametrize("name", ["rows.npz", "rows.csv", "rows.parquet"])
def test_a_pipe_or_a_device_in_place_of_rows_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no regular file"):
        load_columns(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is no regular file"):
        load_columns(path)


def test_a_file_of_rows_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    for name, size, told in (("a.npz", 3 * 2**30, "give fewer rows"), ("a.csv", 2**29, "save it as .npz")):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        with pytest.raises(ValueError, match=told):
            load_columns(tmp_path / name)
