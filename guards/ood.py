"""Ood: several detectors combined to one rarity, under one false-alarm budget.

No single score is best on all outliers (docs/guards.md, section 10), and five detectors with a cut at 1 %
each give about 4 % false alarms together. So each score is converted to a rarity, the rarities are blended,
and the blend is converted to a rarity again (docs/guards.md, sections 2 and 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self, TypeAlias

from guards.atoms import shaken
from guards.detector import I8
from guards.fdbd import Fdbd
from guards.gen import Gen
from guards.knn import Knn
from guards.noise import Noise
from guards.rarity import Composite
from guards.raw_image import RawImage
from guards.raw_tabular import RawTabular
from guards.residual import Residual
from guards.rmd import Rmd
from guards.rows import F8, Signals
from guards.table import MOST_NUMBERS

AnyDetector: TypeAlias = Gen | Fdbd | Rmd | Residual | Knn | Noise | RawImage | RawTabular

RAW = "raw"
KINDS: dict[str, type[AnyDetector]] = {
    cls.kind: cls for cls in (Gen, Fdbd, Rmd, Residual, Knn, Noise, RawImage, RawTabular)
}


RAW_UNREADABLE = (
    "raw: the model has no picture and no table of inputs (an input of any size, or of more than "
    f"{MOST_NUMBERS:,} numbers, is none); leave it out, or use detectors of the answer"
)


def detectors(kind: str, s: Signals) -> tuple[type[AnyDetector], ...]:
    """The detector classes of a kind; `raw` is `raw_image` for x and `raw_tabular` for t, both if both exist.

    Args:    kind: a name of the policy; s: what is there to be read.
    Raises:  ValueError for an unknown kind, with the nearest known one, or for `raw` without any input.
    """
    if kind == RAW:
        raw: dict[type[AnyDetector], object] = {RawImage: s.x, RawTabular: s.t}
        if found := tuple(one for one, signal in raw.items() if signal is not None):
            return found
        raise ValueError(RAW_UNREADABLE)
    if kind not in KINDS:
        nearest = get_close_matches(kind, [*KINDS, RAW], 1, 0.0)[0]
        raise ValueError(f"{kind!r}: no such detector; did you mean {nearest!r}?")
    return (KINDS[kind],)


@dataclass(frozen=True, slots=True, eq=False)
class Ood:
    """Fitted detectors and the composite of their tails.

    Rows without a model answer need a second `Ood`, fitted with the input-only kinds: a subset of these
    detectors would have another distribution of the composite, and so another cut.
    """

    detectors: tuple[AnyDetector, ...]
    composite: Composite

    @classmethod
    def fit(cls, kinds: Sequence[str], fit: Signals, fit_y: I8, tail: Signals, seed: int) -> Self:
        """Fit the detectors on one fold and their tails on another.

        Args:    kinds: `gen fdbd rmd residual knn noise raw_image raw_tabular`, or `raw`; each once.
                 fit, tail: signals of disjoint rows, held out from training; tail has 20 rows or more.
                 fit_y: int64[n], the true classes of the rows of fit.
        Raises:  ValueError from the detector that could not be fitted, for no kinds, or for a repeated kind.
        """
        chosen = [one for kind in kinds for one in detectors(kind, fit)]
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"ood: detectors are {list(kinds)}; name at least one, and each once")
        fitted = tuple(one.fit(fit, fit_y, seed=seed) for one in chosen)
        scores = [[one.score(rows) for one in fitted] for rows in (tail, shaken(tail, seed))]
        return cls(fitted, Composite.fit(*scores))

    @property
    def needs_features(self) -> bool:
        """Whether any detector reads the model's answer."""
        return any(one.needs_features for one in self.detectors)

    def score(self, s: Signals, /) -> F8:
        """The composite rarity: float64[n] nats, >= 0.

        Raises:  ValueError as the detectors do.
        Cost:    the sum of the detectors' costs plus one pass over all tails.
        Source:  docs/guards.md, ood.
        """
        return self.composite.rarity([one.score(s) for one in self.detectors])
