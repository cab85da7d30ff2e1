"""The rows that a gateway without other load serves: only of those can a load say what it takes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from bench.requests import Target, WrongInput
from gateway.cli.infer_body import infer_body
from gateway.cli.outliers import take
from gateway.cli.samples import load_samples
from gateway.core.decision import Tensors
from gateway.protocol.contract import ROW_OUTCOME

ROWS, MOST_ROWS, TIMEOUT_S = 32, 1024, 10.0


def write_served_rows(target: Target, folder: Path, into: Path) -> None:
    """Writes those of a deployment's first 1,024 samples that are served into a file that `--data` takes.

    Raises: WrongInput if no row is.
    """
    clean = load_samples(folder, target.contract).clean
    first = min(MOST_ROWS, len(next(iter(clean.values()))))
    parts = [take(clean, np.arange(at, min(at + ROWS, first))) for at in range(0, first, ROWS)]
    served = np.concatenate([_served(target, part) for part in parts])
    if not served.any():
        raise WrongInput(f"{folder}: none of its samples is served, so that no load can be made of them")
    arrays: dict[str, Any] = dict(take(clean, np.flatnonzero(served)))
    np.savez(into, **arrays)


def _served(target: Target, rows: Tensors) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of each row whether it is served."""
    body, head = infer_body(
        target.contract.inputs, rows, {"outputs": [{"name": ROW_OUTCOME.name}]}, binary=True
    )
    headers = {"x-api-key": target.key or "", "inference-header-content-length": str(head)}
    url = f"http://{target.origin.authority}{target.path}/infer"
    reply = httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S)
    if reply.status_code != 200:
        raise WrongInput(f"{url}: does not answer the deployment's samples: {reply.text[:300]}")
    (outcomes,) = (one["data"] for one in orjson.loads(reply.content)["outputs"])
    return np.array([outcome == "served" for outcome in outcomes])
