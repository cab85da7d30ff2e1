"""The model file itself, without a gateway: what an attack costs where nothing guards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from gateway.core.errors import ArtifactError, Problem
from gateway.core.rows import F8
from gateway.redteam.answers import SERVED, Answer
from gateway.redteam.space import Space

PREFERRED = ("probabilities", "output_probability", "logits")
OK = "ok"
ROWS = 256


class BareModel:
    """Answers every row at full precision. One thread. Cost: that of the model, and 20 us a call."""

    rows_a_request = 1  # so that a run ends with the query that succeeds

    def __init__(self, session: onnxruntime.InferenceSession, output: str, space: Space) -> None:
        self._session, self._output, self._space = session, output, space

    @classmethod
    def load(cls, path: Path, space: Space) -> BareModel:
        """Raises ArtifactError: no model, or one with other inputs than the target's."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise _wrong(path, f"cannot be read: {error.strerror or error}") from error
        except Exception as error:
            raise _wrong(path, "is no model that onnxruntime opens; give the deployment's primary") from error
        taken, wanted = {one.name for one in session.get_inputs()}, {one.name for one in space.inputs}
        if taken != wanted:
            raise _wrong(path, f"takes {sorted(taken)}, but the target takes {sorted(wanted)}")
        return cls(session, _output_of(path, session), space)._tried(path)

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        """One a row, n of any number."""
        p = self.probabilities(rows)
        return [Answer(SERVED, OK, int(one.argmax()), one) for one in p]

    def probabilities(self, rows: F8) -> F8:
        """float64[n, k]; logits go through a softmax."""
        (out,) = self._session.run([self._output], self._space.tensors(rows))
        p = np.asarray(out, np.float64).reshape(len(rows), -1)
        if (p < 0).any() or np.abs(p.sum(axis=1) - 1).max(initial=0) > 1e-2:
            p = np.exp(p - p.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
        return p

    @property
    def classes(self) -> int:
        """How many classes it has."""
        return len(self.probabilities(self._space.low[None])[0])

    def labels(self, rows: F8) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """intp[n]: the class of each row."""
        parts = [self.probabilities(rows[at : at + ROWS]).argmax(axis=1) for at in range(0, len(rows), ROWS)]
        return np.concatenate(parts) if parts else np.empty(0, np.intp)

    def _tried(self, path: Path) -> BareModel:
        """Itself, once it has answered a row."""
        try:
            p = self.probabilities(self._space.low[None])
        except Exception as error:
            raise _wrong(path, f"does not take rows of the target's shape: {error}") from error
        if p.shape[1] < 2:
            raise _wrong(path, f"gives {self._output} with one column; classes have two or more")
        return self


def _output_of(path: Path, session: onnxruntime.InferenceSession) -> str:
    """The output that holds a probability or a logit a class. Raises ArtifactError."""
    found = [
        one.name
        for one in session.get_outputs()
        if one.type.startswith("tensor(float") and len(one.shape) == 2
    ]
    named = [name for name in PREFERRED if name in found]
    if not found:
        raise _wrong(path, "has no output with a probability a class; attacks need a classifier")
    return (named or found)[0]


def _wrong(path: Path, what: str) -> ArtifactError:
    return ArtifactError([Problem("--bare", what, str(path))])
