"""Whether a server is up, and really runs the model: its answer to a request beside the model's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

import numpy as np
import orjson
import uvloop
from numpy.typing import NDArray

from bench.client import Origin, Response, send_once
from bench.requests import WrongInput
from fallbacks.onnx import OnnxModel

OUTPUT = "probabilities"
INFERENCE_HEADER = b"inference-header-content-length: "
START_S, POLL_S, TAIL_BYTES, MAX_TRIES = 120.0, 0.1, 3000, 128
SERVED_OUTCOMES = ("served", "")
TOLERANCE = 1e-4


def wait_until_ready(server: str, child: Popen[bytes], origin: Origin, request: bytes, log: Path) -> None:
    """Returns once the server judges or answers a request. Raises WrongInput with the end of its log."""
    until_s = time.monotonic() + START_S
    while child.poll() is None and time.monotonic() < until_s:
        with suppress(ConnectionError):
            answer = uvloop.run(send_once(origin, request))
            if answer.status == 200 or answer.outcome:
                return
        time.sleep(POLL_S)
    raise WrongInput(f"{server} does not answer: {log.read_text('utf-8', 'replace')[-TAIL_BYTES:]}")


def verify_answers(server: str, origin: Origin, requests: Sequence[bytes], model: OnnxModel) -> None:
    """Raises WrongInput unless the server gives the model's own probabilities.

    The gateway stops a few good rows, so the first request that it serves as a whole is looked at.
    """
    for request in requests[:MAX_TRIES]:
        answer = uvloop.run(send_once(origin, request))
        if answer.status == 200 and answer.outcome in SERVED_OUTCOMES:
            compare_answer(server, request, answer, model)
            return
    raise WrongInput(f"{server} serves none of {MAX_TRIES} requests: {answer.status} {answer.body[:300]!r}")


def compare_answer(server: str, request: bytes, answer: Response, model: OnnxModel) -> None:
    """Raises WrongInput unless the answer holds the model's probabilities for the rows of the request."""
    head, _, body = request.partition(b"\r\n\r\n")
    sent = int(head.split(INFERENCE_HEADER)[1].split(b"\r\n")[0]) if INFERENCE_HEADER in head else 0
    expected = model.run({model.inputs[0].name: first_tensor(body, sent)})[OUTPUT]
    try:
        got = first_tensor(answer.body, answer.header_bytes)
    except (ValueError, LookupError, TypeError) as error:
        raise WrongInput(f"{server}: its answer is no tensor: {answer.body[:300]!r}") from error
    if got.shape != expected.shape or not np.allclose(got, expected, atol=TOLERANCE):
        raise WrongInput(f"{server}: its answer is not the model's: {got} instead of {expected}")


def first_tensor(body: bytes, header_bytes: int) -> NDArray[np.float32]:
    """The first tensor of a request or an answer. Raises ValueError, LookupError or TypeError."""
    document = orjson.loads(body[: header_bytes or None])
    one = (document["inputs"] if "inputs" in document else document["outputs"])[0]
    if not header_bytes:
        return np.array(one["data"], np.float32).reshape(one["shape"])
    size = one["parameters"]["binary_data_size"]
    return np.frombuffer(body[header_bytes : header_bytes + size], np.float32).reshape(one["shape"])
