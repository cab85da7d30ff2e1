"""A text classifier of scikit-learn: from which package the first words of a docstring are."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from exported import Columns, Exported, split
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

PACKAGES = ("pandas", "scipy", "sklearn")
EACH = 1_400
CHARACTERS = 300
DOCSTRING = re.compile(r'^ +r?"""(.+?)"""', re.MULTILINE | re.DOTALL)


def text_classifier() -> Exported:
    """TfidfVectorizer and logistic regression; the graph splits words as Python's re does, or nearly."""
    texts, y = docstrings()
    model = make_pipeline(
        TfidfVectorizer(token_pattern="[a-zA-Z_]+", max_features=3_000), LogisticRegression(C=30)
    )
    model.fit(texts[:2_000], y[:2_000])
    exported = to_onnx(model, initial_types=[("text", StringTensorType([None, 1]))])
    held: Columns = {"text": np.array(texts[2_000:])[:, None], "y": y[2_000:]}
    held["expected"] = model.predict_proba(texts[2_000:]).astype(np.float32)
    rows, asked = split(held, 1_600)
    absurd = {"another alphabet": "жщюя ъыьэ " * 20, "no words": "1234567890 !?", "nothing": ""}
    return Exported(
        exported.SerializeToString(),
        rows,
        asked,
        {what: {"text": np.array([[text]])} for what, text in absurd.items()},
    )


def docstrings() -> tuple[list[str], np.ndarray]:
    """The beginning of docstrings in a fixed random order, and the package of each."""
    found = {package: set(_of(package)) for package in PACKAGES}
    random = np.random.default_rng(0)
    kept: list[tuple[str, str]] = []
    for package in PACKAGES:
        own = sorted(found[package].difference(*(found[p] for p in PACKAGES if p != package)))
        kept += [(own[i], package) for i in random.permutation(len(own))[:EACH]]
    order = random.permutation(len(kept))
    return [kept[i][0] for i in order], np.array([kept[i][1] for i in order])


def _of(package: str) -> Iterator[str]:
    folder = Path(sysconfig.get_path("purelib")) / package
    for path in sorted(folder.rglob("*.py")):
        if "tests" not in path.relative_to(folder).parts:
            for text in DOCSTRING.findall(path.read_text()):
                if len(text) > 2 * CHARACTERS:
                    yield " ".join(text.split())[:CHARACTERS]
