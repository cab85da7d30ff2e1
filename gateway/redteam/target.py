"""The deployment that is attacked, through its own HTTP endpoint, with a caller's key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import orjson

from fallbacks.roles import LABEL, PROBABILITIES
from gateway.core.errors import Problem, Problems
from gateway.core.rows import F8
from gateway.protocol.contract import ROW_OUTCOME
from gateway.redteam.answers import OUTCOMES, REFUSED, Answer
from gateway.redteam.space import Column, Space

TIMEOUT_S: Final = 30.0
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
ENDINGS: Final = {200, 422, 429, 503, 504}
"""Statuses of rows that were judged, or that found no room; any other is a mistake of the operator."""
TOO_MANY: Final = 429
KEY_MEND: Final = "make keys with `gateway key DIR NAME`, give them with --keys FILE, one a line, or --key"


class WrongTarget(Problems):
    """The target cannot be attacked as it is; says what to mend."""


class TargetGone(Problems):
    """The target answers no more."""


@dataclass(frozen=True, slots=True)
class Target:
    """One served model. url: of the model, without a final slash; output: what its classes are read from."""

    url: str
    name: str
    inputs: tuple[Column, ...]
    output: str

    @classmethod
    def find(cls, url: httpx.URL, model: str | None, key: str | None) -> Target:
        """The model behind `http://host:port`, or `.../v2/models/NAME`. Raises WrongTarget, TargetGone."""
        origin, _, named = str(url).rstrip("/").partition("/v2/models/")
        with _client(key) as client:
            name = model or named.partition("/")[0] or _only_model(client, origin)
            described = _read(client, "GET", f"{origin}/v2/models/{name}")
        return cls._described(f"{origin}/v2/models/{name}", described)

    @classmethod
    def _described(cls, url: str, metadata: Mapping[str, Any]) -> Target:
        try:
            inputs = tuple(_column(one) for one in metadata["inputs"])
            outputs = {str(one["name"]): str(one["datatype"]) for one in metadata["outputs"]}
            name = str(metadata["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise WrongTarget(
                [Problem("URL", f"{url} describes no model of this protocol: {error}")]
            ) from error
        if PROBABILITIES in outputs:
            return cls(url, name, inputs, PROBABILITIES)
        if outputs.get(LABEL, "").startswith(("INT", "UINT")):
            return cls(url, name, inputs, LABEL)
        what = f"{name} shows neither `probabilities` nor a number `label`, but {sorted(outputs)}"
        raise WrongTarget([Problem("URL", f"{what}; only classifiers are attacked")])

    def model(self, space: Space, key: str | None, rows: int = 1) -> GatewayModel:
        """The model as one caller sees it; to be closed."""
        return GatewayModel(self, space, _client(key), rows)


class GatewayModel:
    """One caller's view: a connection that is kept, a request for each `rows_a_request` rows.

    After a 429 it is given up: the gateway delays the next ones on the same connection.
    decision: the id of its last request, "" before the first.
    """

    def __init__(self, target: Target, space: Space, client: httpx.Client, rows: int) -> None:
        self._target, self._space, self._client = target, space, client
        self._rows = rows
        self._anew = False
        self.decision = ""

    @property
    def rows_a_request(self) -> int:
        return self._rows

    def close(self) -> None:
        """Ends its connection."""
        self._client.close()

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        """Sends n rows in one request. Raises WrongTarget, TargetGone. Cost: a round trip."""
        body, head = self._body(rows)
        headers = {"inference-header-content-length": str(head), "content-type": "application/octet-stream"}
        if self._anew:
            headers["connection"] = "close"
        reply = _send(self._client, "POST", f"{self._target.url}/infer", content=body, headers=headers)
        self._anew = reply.status_code == TOO_MANY
        if reply.status_code not in ENDINGS or "x-failsafe-outcome" not in reply.headers:
            raise _wrong(reply, self._target.url)
        self.decision = reply.headers.get("x-failsafe-decision-id", "")
        if reply.status_code != 200:
            return [_unanswered(reply)] * len(rows)
        return self._answers(reply, len(rows))

    def _body(self, rows: F8) -> tuple[bytes, int]:
        inputs, tails = [], []
        for spec, (name, array) in zip(self._target.inputs, self._space.tensors(rows).items(), strict=True):
            tails.append(raw := array.tobytes())
            inputs.append({"name": name, "datatype": _datatype(spec), "shape": list(array.shape),
                           "parameters": {"binary_data_size": len(raw)}})  # fmt: skip
        outputs = [self._target.output] + [ROW_OUTCOME.name] * (len(rows) > 1)
        head = orjson.dumps({"inputs": inputs, "outputs": [{"name": name} for name in outputs]})
        return b"".join((head, *tails)), len(head)

    def _answers(self, reply: httpx.Response, n: int) -> list[Answer]:
        try:
            outputs = {one["name"]: one["data"] for one in reply.json()["outputs"]}
            values = np.array(outputs[self._target.output], np.float64).reshape(n, -1)  # null is NaN
        except (KeyError, TypeError, ValueError) as error:
            raise WrongTarget(
                [Problem("URL", f"{self._target.url} answers in another form: {error}")]
            ) from error
        reason, whole = reply.headers["x-failsafe-reason"], reply.headers["x-failsafe-outcome"]
        ends = outputs.get(ROW_OUTCOME.name, [whole] * n)
        return [self._answer(str(end), reason, one) for end, one in zip(ends, values, strict=True)]

    def _answer(self, end: str, reason: str, values: F8) -> Answer:
        """Of one row. The reason is that of the request's worst row."""
        if end not in OUTCOMES[:2]:
            return Answer(end, reason)
        if self._target.output == LABEL:
            return Answer(end, reason, int(values[0]))
        return Answer(end, reason, int(values.argmax()), values)


def _unanswered(reply: httpx.Response) -> Answer:
    """A deferral or a refusal: its Retry-After in seconds, 0 without one."""
    wait = reply.headers.get("retry-after", "0")
    outcome, reason = reply.headers["x-failsafe-outcome"], reply.headers["x-failsafe-reason"]
    return Answer(
        outcome if outcome in OUTCOMES else REFUSED,
        reason,
        None,
        None,
        float(wait) if wait.isdigit() else 0.0,
    )


def _client(key: str | None) -> httpx.Client:
    """No redirects, no proxies of the environment: the host that was permitted is the one asked."""
    headers = {} if key is None else {"x-api-key": key}
    return httpx.Client(headers=headers, timeout=TIMEOUT_S, trust_env=False, follow_redirects=False)


def _send(client: httpx.Client, method: str, url: str, **more: Any) -> httpx.Response:
    """One request; once more where a kept connection had been closed. Raises TargetGone."""
    for last in (False, True):
        try:
            return client.request(method, url, **more)
        except httpx.RemoteProtocolError as error:
            if last:
                raise _gone(url, error) from error
        except httpx.HTTPError as error:
            raise _gone(url, error) from error
    raise AssertionError("the second attempt returns or raises")


def _gone(url: str, error: Exception) -> TargetGone:
    what = f"{url} cannot be reached: {error or type(error).__name__}; is the gateway running there?"
    return TargetGone([Problem("URL", what)])


def _read(client: httpx.Client, method: str, url: str, **more: Any) -> Any:
    """The document of a reply that must be 200. Raises WrongTarget, TargetGone."""
    reply = _send(client, method, url, **more)
    if reply.status_code != 200:
        raise _wrong(reply, url)
    try:
        return reply.json()
    except ValueError as error:
        raise WrongTarget([Problem("URL", f"{url} does not answer as a model server")]) from error


def _only_model(client: httpx.Client, origin: str) -> str:
    """The name of the one model that the key opens. Raises WrongTarget."""
    listed = _read(client, "POST", f"{origin}/v2/repository/index", json={"ready": True})
    names = sorted({str(one["name"]) for one in listed if isinstance(one, dict) and "name" in one})
    if len(names) != 1:
        what = f"{origin} serves {', '.join(names) or 'no model that is ready'}"
        raise WrongTarget([Problem("--model", f"{what}; name the one to attack" if names else what)])
    return names[0]


def _wrong(reply: httpx.Response, url: str) -> WrongTarget:
    """What an unexpected status says, and how to mend it."""
    try:
        told = str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        told = reply.reason_phrase
    match reply.status_code:
        case 401 | 403:
            return WrongTarget([Problem("--key", f"{url} answers {reply.status_code}: {told}; {KEY_MEND}")])
        case 404:
            return WrongTarget([Problem("--model", f"{url} is not served there: {told}")])
        case 400:
            what = f"{url} takes no such rows: {told}; --samples must hold rows of this model"
            return WrongTarget([Problem("--samples", what)])
        case 421:
            return WrongTarget([Problem("URL", f"{url}: {told}; use a name that `serving.hosts` lists")])
        case other:
            return WrongTarget([Problem("URL", f"{url} answers {other}: {told}")])


def _column(entry: Mapping[str, Any]) -> Column:
    """Raises ValueError for an input that is not of floats, or whose rows have no fixed shape."""
    name, datatype, shape = str(entry["name"]), str(entry["datatype"]), tuple(map(int, entry["shape"][1:]))
    if datatype not in DTYPES:
        raise ValueError(f"input {name!r} is {datatype}; only inputs of floats are attacked")
    if any(size < 1 for size in shape):
        raise ValueError(f"input {name!r} has rows of any length; only fixed shapes are attacked")
    return Column(name, DTYPES[datatype], shape)


def _datatype(column: Column) -> str:
    return next(name for name, dtype in DTYPES.items() if dtype == column.dtype)
