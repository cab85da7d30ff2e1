"""How well a score separates outliers from good rows: AUROC, and the detection rate at a false-alarm rate."""

from __future__ import annotations

import numpy as np

from gateway.core.rows import F8


def auroc(clean: F8, outliers: F8) -> float:
    """P(an outlier scores above a good row), ties half: the Mann-Whitney form, in O((n + m) log n)."""
    ranked = np.sort(clean)
    below = np.searchsorted(ranked, outliers, "left").mean()
    return float((below + np.searchsorted(ranked, outliers, "right").mean()) / 2 / len(ranked))


def detection_rate(clean: F8, outliers: F8, false_alarms: float) -> float:
    """The share of outliers above the lowest threshold which at most that share of good rows exceeds."""
    ranked = np.sort(clean)[::-1]
    threshold = ranked[min(int(false_alarms * len(ranked)), len(ranked) - 1)]
    return float((outliers > threshold).mean())
