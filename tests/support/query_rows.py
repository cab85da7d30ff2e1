"""Rows for tests of the memory of queries: the ready deployments' own, and changes that keep a row near."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from guards.coarse import F4, Coarse
from guards.query_sketch import Sketcher

SALT, OTHER_SALT = b"one salt of 16 b", b"another of 16 by"
FASHION, LETTERS, DIAMONDS = (Path("configs") / name for name in ("fashion", "letters", "diamonds"))
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""ITU-T T.81, table K.1: JPEG's steps of the luminance at quality 50."""


@cache
def pictures() -> F4:
    """float32[1000, 1, 28, 28] in [0, 1]."""
    with np.load(FASHION / "samples.npz") as samples:
        return np.asarray(samples["image"] * samples["scale"], np.float32)


@cache
def letters() -> F4:
    """float32[1000, 16], whole numbers in 0 .. 15."""
    with np.load(LETTERS / "samples.npz") as samples:
        return np.asarray(samples["attributes"], np.float32)


@cache
def diamonds() -> tuple[F4, np.ndarray[tuple[int, int], np.dtype[np.str_]]]:
    """float32[200, 6] and texts [200, 3]."""
    with np.load(DIAMONDS / "samples.npz") as samples:
        numbers = [samples[name] for name in ("carat", "depth", "table", "length", "width", "height")]
        texts = [samples[name] for name in ("cut", "color", "clarity")]
    return np.concatenate(numbers, axis=1).astype(np.float32), np.concatenate(texts, axis=1)


@cache
def picture_sketcher() -> Sketcher:
    return Sketcher(Coarse.fit(pictures()), SALT)


@cache
def letter_sketcher() -> Sketcher:
    return Sketcher(Coarse.fit(letters()), SALT)


def jpeg(x: F4) -> F4:
    """Pictures [n, 1, 28, 28] in [0, 1] after JPEG's cosine transform and quantisation at quality 50."""
    i = np.arange(8)
    cosines = np.cos((2 * i[None] + 1) * i[:, None] * np.pi / 16) * np.where(i[:, None] == 0, 8**-0.5, 0.5)
    padded = np.pad(x[:, 0] * 255.0 - 128, ((0, 0), (0, 4), (0, 4)), mode="edge")
    blocks = padded.reshape(-1, 4, 8, 4, 8).swapaxes(2, 3)
    kept = np.rint(cosines @ blocks @ cosines.T / LUMINANCE) * LUMINANCE
    back = (cosines.T @ kept @ cosines).swapaxes(2, 3).reshape(-1, 32, 32)[:, None, :28, :28]
    return np.asarray(np.clip((np.rint(back) + 128) / 255, 0, 1), np.float32)


def noisy(x: F4, eps: float, seed: int = 0) -> F4:
    """Pictures in [0, 1] with Gaussian noise."""
    drawn = np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    return np.asarray(np.clip(x + np.float32(eps) * drawn, 0, 1), np.float32)
