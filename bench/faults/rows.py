"""The rows that callers send: those of which it is known how they end with and without the primary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bench.faults.client import Request
from bench.requests import Target
from gateway.cli.infer_body import infer_body
from gateway.cli.outliers import take
from gateway.cli.samples import Samples
from gateway.core.decision import Tensors

ROWS_OF_SEVERAL: Final = 3
OUTLIER_EVERY, SEVERAL_EVERY, SPARE = 5, 10, 20
GOOD, OUTLIER = "good", "outlier"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows to choose from: `samples` of a deployment, at most so many of a kind, in a fixed random order."""

    good: Tensors
    outliers: Tensors

    @classmethod
    def of(cls, samples: Samples, family: str, most: int) -> Candidates:
        return cls(_shuffled(samples.clean, most), _shuffled(samples.families[family], most // 2))


@dataclass(frozen=True, slots=True)
class Rows:
    """Renders requests to one model. good, outliers: indices of the candidates that are sent."""

    target: Target
    candidates: Candidates
    good: Sequence[int]
    outliers: Sequence[int]

    def spare(self, i: int) -> Request:
        """A request of one good row that no cell sends, another one each time."""
        return self._request(f"spare #{i}", GOOD, [self.good[len(self.good) - 1 - i % SPARE]])

    def requests(self, cell: str, n: int, key: str | None = None) -> list[Request]:
        """The requests of one cell: one of an outlier in five, one of several good rows in ten."""
        made: list[Request] = []
        at = 0
        for i in range(n):
            id_ = f"{cell} #{i}"
            if i % OUTLIER_EVERY == 1:
                some = [self.outliers[i // OUTLIER_EVERY % len(self.outliers)]]
                made.append(self._request(id_, OUTLIER, some, key))
                continue
            rows = ROWS_OF_SEVERAL if i % SEVERAL_EVERY == 0 else 1
            made.append(
                self._request(id_, GOOD, [self.good[(at + j) % len(self.good)] for j in range(rows)], key)
            )
            at += rows
        return made

    def _request(self, id_: str, kind: str, some: Sequence[int], key: str | None = None) -> Request:
        x = take(self.candidates.good if kind == GOOD else self.candidates.outliers, np.array(some))
        outputs = [{"name": spec.name} for spec in self.target.contract.outputs]
        more: Mapping[str, Any] = {"id": id_, "outputs": outputs}
        body, head = infer_body(self.target.contract.inputs, x, dict(more), binary=True)
        headers = {
            "host": self.target.origin.authority,
            "x-api-key": key or self.target.key or "",
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(head),
            "content-length": str(len(body)),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        payload = f"POST {self.target.path}/infer HTTP/1.1\r\n{lines}\r\n".encode() + body
        return Request(id_, kind, len(some), payload)


def _count(x: Tensors) -> int:
    return len(next(iter(x.values())))


def _shuffled(x: Tensors, most: int) -> Tensors:
    return take(x, np.random.default_rng(0).permutation(_count(x))[:most])
