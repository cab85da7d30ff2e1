"""What the airlock is asked: files, what is tried on them, and what they may take. Travels as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import orjson

MIB: Final = 2**20
OPEN_CPU_S: Final = 8.0
BYTES_PER_CPU_S: Final = 16 * MIB
BUDGETS: Final = 4.0
COPIES_OF_FILE: Final = 6
"""The bytes of a file, its parsed form, onnxruntime's copies, and the weights once more in another order."""
WALL_PER_CPU_S: Final = 6.0
"""Seconds that may pass for one of computing: other processes compute as well."""


@dataclass(frozen=True, slots=True)
class ModelTrial:
    """One ONNX file, and what is tried on it.

    path: its name in problems; file: where it is opened, absolute. sha256: of the bytes that will be served.
    names: the deployment's name of a tensor, to the file's. row_shapes: by input, the sizes of one row where
    they are known; None is any size. max_rows: the largest batch. rows: an absolute path of a `guards.npz`
    whose kept rows are tried, empty for none; rows_sha256: of its bytes. budget_s: of the rung. memory_mib:
    what it may take, besides six times the file.
    """

    path: str
    file: str
    sha256: str
    size_bytes: int
    names: Mapping[str, str]
    row_shapes: Mapping[str, list[int | None]]
    max_rows: int
    rows: str
    rows_sha256: str
    budget_s: float
    memory_mib: int

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MIB + COPIES_OF_FILE * self.size_bytes

    @property
    def cpu_s(self) -> float:
        """Seconds of computing for all of it: opening, and runs at three shapes."""
        return OPEN_CPU_S + self.size_bytes / BYTES_PER_CPU_S + BUDGETS * self.budget_s

    @property
    def wall_s(self) -> float:
        return WALL_PER_CPU_S * self.cpu_s

    def fields(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        return cls(**fields)

    @property
    def content(self) -> dict[str, Any]:
        """All but where the files lie: what a verdict depends on."""
        return {name: value for name, value in asdict(self).items() if name not in ("path", "file", "rows")}


def too_large(trial: ModelTrial) -> str:
    """That a trial was out of memory, and the mend."""
    return (
        f"takes more than {trial.memory_bytes // MIB} MiB to open, or to answer {trial.max_rows} rows; "
        "lower serving.max_batch_rows, or raise serving.model_memory_mib"
    )


def too_slow(trial: ModelTrial) -> str:
    """That a trial was out of time, and the mend."""
    return (
        f"computes longer than {trial.cpu_s:.0f} s to open and to answer 1 to {trial.max_rows} rows; "
        "lower serving.max_batch_rows, or export a smaller model"
    )


def to_json(trials: list[ModelTrial]) -> bytes:
    return orjson.dumps([trial.fields() for trial in trials])


def from_json(text: bytes) -> list[ModelTrial]:
    return [ModelTrial.of(fields) for fields in orjson.loads(text)]


def folder_of_code() -> Path:
    """The folder that holds the package `gateway`."""
    return Path(__file__).resolve().parents[2]
