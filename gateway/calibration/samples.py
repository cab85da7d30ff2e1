from dataclasses import dataclass
from typing import Any
import numpy as np


@dataclass(frozen=True)
class CountedRows:
    group: Any
    rows: int
    counted: int
    by: Any
    warning: str | None


def count_samples(x, y, group):
    n = len(y)
    return CountedRows(np.arange(n), n, n, "rows", None)


def one_row_of_each(group, rows, seed):
    return rows


def row_hashes(x, y):
    return np.zeros(1, np.uint64)
