"""The two deployments that are served, and the rows that are sent to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

InputRows: TypeAlias = NDArray[np.float32]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True, slots=True)
class SampledDeployment:
    """What requests to a deployment are made of. most: rows of one request; odd: rows unlike the samples."""

    name: str
    input: str
    max_rows: int
    samples: InputRows
    outliers: dict[str, InputRows]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.samples.shape[1:]

    @property
    def row(self) -> InputRows:
        """One row that the model answers."""
        return self.samples[:1]

    @property
    def noise_rows(self) -> InputRows:
        """Rows of noise, the same ones each time: a person has to answer them."""
        noise = np.random.default_rng(SEED).uniform(0, self.samples.max(), (NOISE_ROWS, *self.shape))
        return noise.astype(np.float32)


SEED, NOISE_ROWS = 3, 128
SAMPLED_DEPLOYMENTS = {"letters": ("attributes", 128), "fashion": ("image", 32)}
"""The input of each deployment's model, and how many rows one request may have."""


def load_deployment(name: str, configs: Path = CONFIGS) -> SampledDeployment:
    """The rows of a deployment, from the files that are committed."""
    name_of_input, max_rows = SAMPLED_DEPLOYMENTS[name]
    with np.load(configs / name / "samples.npz") as held:
        scale = np.float32(held["scale"]) if "scale" in held else np.float32(1)
        samples = held[name_of_input].astype(np.float32) * scale
    with np.load(configs / name / "outliers.npz") as held:
        outliers = {kind: held[kind].astype(np.float32) * scale for kind in held if not kind.endswith("_y")}
    return SampledDeployment(name, name_of_input, max_rows, samples, outliers)
