"""What the rows of a calibration file count as: copies are no samples, rows of a coarse table are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.calibration.samples import Samples, count_samples, one_row_of_each
from tests.support.deployments import CONFIGS

Array = NDArray[Any]
Table = tuple[Array, Array]
N = 1_000
PRODUCTS = np.random.default_rng(7).normal(size=(12, 3))


def labels(x: Array, noise: float, rng: np.random.Generator) -> Array:
    score = x @ np.arange(1, x.shape[1] + 1)
    noisy = score + noise * score.std() * rng.normal(size=len(x))
    above: Array = noisy > np.median(noisy)
    return above.astype(np.int64)


def answers(rng: np.random.Generator, columns: int, values: int) -> Array:
    """Skewed answers to questions, independent of each other."""
    return np.stack(
        [rng.choice(values, N, p=rng.dirichlet(np.full(values, 4.0))) for _ in range(columns)], axis=1
    ).astype(np.float32)


def survey(rng: np.random.Generator, noise: float) -> Table:
    x = answers(rng, 4, 5)
    return x, labels(x, noise, rng)


def survey_one_hot(rng: np.random.Generator, noise: float) -> Table:
    x = answers(rng, 4, 5)
    coded = np.concatenate([np.eye(5, dtype=np.float32)[x[:, j].astype(int)] for j in range(4)], axis=1)
    return coded, labels(x, noise, rng)


def survey_with_totals(rng: np.random.Generator, noise: float) -> Table:
    """A column that follows from the others, and a constant one."""
    x = answers(rng, 4, 5)
    return np.column_stack([x, x.sum(axis=1), np.ones(N)]).astype(np.float32), labels(x, noise, rng)


def products(rng: np.random.Generator, noise: float) -> Table:
    x = PRODUCTS[rng.integers(0, len(PRODUCTS), N)]
    return x, labels(x, noise, rng)


def priced_products(rng: np.random.Generator, noise: float) -> Table:
    """One continuous column: alone it tells rows apart."""
    x = np.column_stack([PRODUCTS[rng.integers(0, len(PRODUCTS), N)], rng.normal(size=N)])
    return x, labels(x, noise, rng)


def one_column(rng: np.random.Generator, noise: float) -> Table:
    x = rng.normal(size=(N, 1))
    return x, labels(x, noise, rng)


def letters(rng: np.random.Generator, noise: float) -> Table:
    with np.load(CONFIGS / "letters" / "letters.npz") as file:
        x, y = file["x"].astype(np.float32), np.unique(file["y"], return_inverse=True)[1]
    rows = rng.permutation(len(y))[: 4 * N]
    return x[rows], y[rows]


def images(rng: np.random.Generator, noise: float) -> Table:
    x = rng.integers(0, 256, (N, 1, 8, 10)).astype(np.uint8)
    return x, rng.integers(0, 10, N)


def as_it_is(y: Array, rng: np.random.Generator) -> Array:
    return np.arange(len(y))


def tiled(y: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(np.tile(np.arange(len(y)), 3))


def bootstrapped(y: Array, rng: np.random.Generator) -> Array:
    return rng.integers(0, len(y), len(y))


def class_filled_up(y: Array, rng: np.random.Generator) -> Array:
    """One class drawn with replacement until it has as many rows as all others together."""
    of_class = np.flatnonzero(y == 0)
    return np.concatenate([np.arange(len(y)), rng.choice(of_class, len(y))])


def class_repeated(y: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(np.concatenate([np.arange(len(y)), np.tile(np.flatnonzero(y == 0), 4)]))


def counted(table: Table, rows: Array) -> Samples:
    x, y = table
    return count_samples({"x": x[rows]}, y[rows], None)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("make", [survey, priced_products, one_column, letters, images])
def test_rows_as_they_were_drawn_all_count(make: Callable[..., Table], noise: float) -> None:
    rng = np.random.default_rng(0)
    table = make(rng, noise)
    samples = counted(table, as_it_is(table[1], rng))
    assert (samples.counted, samples.by) == (len(table[1]), "rows")
    assert samples.group.tolist() == list(range(samples.rows))


@pytest.mark.parametrize("make", [survey_one_hot, survey_with_totals, products])
def test_where_columns_follow_from_each_other_noisy_labels_show_independence(
    make: Callable[..., Table],
) -> None:
    rng = np.random.default_rng(0)
    table = make(rng, 1.5)
    assert counted(table, as_it_is(table[1], rng)).by == "rows"


def test_where_nothing_shows_independence_equal_rows_count_once() -> None:
    """The safe error: a dozen products whose labels have no noise could be a dozen rows, copied."""
    rng = np.random.default_rng(0)
    samples = counted(table := products(rng, 0.0), as_it_is(table[1], rng))
    assert (samples.counted, samples.by) == (12, "distinct rows")


@pytest.mark.parametrize("noise", [0.0, 1.5])
@pytest.mark.parametrize(
    "make", [survey, survey_one_hot, products, priced_products, one_column, letters, images]
)
def test_a_file_stored_three_times_counts_no_more_than_once(make: Callable[..., Table], noise: float) -> None:
    rng = np.random.default_rng(0)
    table = make(rng, noise)
    once = counted(table, as_it_is(table[1], rng)).counted
    samples = counted(table, tiled(table[1], rng))
    assert samples.counted == once
    assert samples.warning is not None
    assert f"{samples.rows:,} rows count as {once:,} samples" in samples.warning


@pytest.mark.parametrize("noise", [0.0, 1.5])
@pytest.mark.parametrize("make", [survey, survey_one_hot, letters, images])
def test_a_class_repeated_a_fixed_number_of_times_counts_once(
    make: Callable[..., Table], noise: float
) -> None:
    rng = np.random.default_rng(0)
    table = make(rng, noise)
    once = counted(table, as_it_is(table[1], rng)).counted
    assert counted(table, class_repeated(table[1], rng)).counted <= once


@pytest.mark.parametrize("noise", [0.0, 1.5])
@pytest.mark.parametrize("draw", [bootstrapped, class_filled_up])
@pytest.mark.parametrize("make", [priced_products, one_column, letters, images])
def test_rows_drawn_with_replacement_from_a_fine_table_count_once(
    make: Callable[..., Table], draw: Callable[..., Array], noise: float
) -> None:
    """One continuous column suffices, though its values then match as rarely as in independent rows."""
    rng = np.random.default_rng(0)
    table = make(rng, noise)
    rows = draw(table[1], rng)
    samples = counted(table, rows)
    assert samples.by == "distinct rows"
    assert samples.counted <= len(np.unique(rows))


def test_copies_in_a_coarse_table_are_not_seen_where_natural_repeats_outnumber_them() -> None:
    """A limit that the module states; `group` mends it."""
    rng = np.random.default_rng(0)
    x, y = survey(rng, 1.5)
    x = x[:, :2]
    rows = rng.integers(0, N, 5 * N)
    assert counted((x, y), rows).counted == 5 * N
    assert count_samples({"x": x[rows]}, y[rows], rows).counted == len(np.unique(rows))


def test_three_hundred_rows_stored_ten_times_are_three_hundred_samples() -> None:
    rng = np.random.default_rng(0)
    x, y = letters(rng, 0.0)
    different = np.unique(x, axis=0, return_index=True)[1]
    x, y = x[different], y[different]
    samples = counted((x, y), np.repeat(np.arange(300), 10))
    assert (samples.counted, samples.by) == (300, "distinct rows")
    assert samples.group.tolist() == np.repeat(np.arange(300), 10).tolist()


def test_every_row_of_a_coarse_table_with_noisy_labels_is_a_sample() -> None:
    """Five values times four, 1,800 rows: 40 different rows at most."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.choice(k, 1_800, p=rng.dirichlet(np.full(k, 2.0))) for k in (5, 4)], axis=1)
    y = (x.sum(axis=1) + rng.normal(0, 1.5, 1_800) > 4).astype(np.int64)
    samples = count_samples({"x": x.astype(np.float32)}, y, None)
    assert (samples.counted, samples.by) == (1_800, "rows")
    assert samples.warning is not None
    assert "all count as independent samples" in samples.warning


@pytest.mark.parametrize("group", [np.array([5, -1, 5, 3]), np.array(["b", "a", "b", "c"])])
def test_a_group_column_overrules_what_the_rows_look_like(group: Array) -> None:
    y = np.zeros(4, np.int64)
    samples = count_samples({"x": np.arange(4.0)}, y, group)
    assert (samples.group.tolist(), samples.counted, samples.by) == ([0, 1, 0, 2], 3, "groups")
    assert count_samples({"x": np.zeros(4)}, y, np.arange(4)).warning is None


def test_few_repeats_are_not_warned_of() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[1] = x[0]
    samples = count_samples({"x": x}, np.zeros(100, np.int64), None)
    assert (samples.counted, samples.warning) == (99, None)


def test_rows_differ_if_any_input_or_the_label_differs_in_a_byte() -> None:
    x = {"a": np.array([0.0, -0.0, 0.0, 0.0]), "b": np.array([[b"s"], [b"s"], [b"t"], [b"s"]], object)}
    y = np.array([0, 0, 0, 1])
    assert count_samples(x, y, None).counted == 4
    assert count_samples({"a": np.zeros(4), "b": x["b"]}, np.zeros(4, np.int64), None).counted == 2


def test_columns_in_any_position_tell_rows_apart() -> None:
    """The same values in another order are another row."""
    x = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    assert count_samples({"x": x}, np.zeros(4, np.int64), None).counted == 4


def test_one_row_of_each_group_among_the_given_rows() -> None:
    group = np.array([0, 0, 1, 2, 2, 2, 3])
    rows = np.array([6, 5, 4, 1, 0])
    chosen = one_row_of_each(group, rows, seed=1)
    assert group[chosen].tolist() == [0, 2, 3]
    assert set(chosen) <= set(rows)
    assert chosen.tolist() == sorted(chosen)
    assert chosen.tolist() == one_row_of_each(group, rows, seed=1).tolist()


def test_every_row_of_a_group_may_be_drawn() -> None:
    group, rows = np.array([0, 0, 0, 1]), np.arange(4)
    assert {int(one_row_of_each(group, rows, seed)[0]) for seed in range(40)} == {0, 1, 2}
