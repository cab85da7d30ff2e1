"""The attacks of a caller without a key, each with what it sends.

| attack | what it sends |
|---|---|
| worst bodies | the largest valid JSON body that the model takes, compressed, over four connections |
| invalid bodies | the same with a value that is no number at its end |
| queue flood | outliers, each another one, so that every row goes to review |
| half heads | the beginning of a request's head, over 500 connections |
| idle administration | nothing, over 1,000 connections to the administration port |
| half prefaces | the beginning of HTTP/2's preface, over 500 connections to the gRPC port |
| waiting requests | outliers that wait for a reviewer for 30 s, over 200 connections |
| refused rows | one row after the other over 64 connections, far beyond the rate of the caller |

Requests come from one address, which is one caller: what several callers get together is a matter of their
rates. Connections that are only held come from eight.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.requests import Target
from bench.under_attack.attacker import AttackPlan
from gateway.cli.infer_body import infer_body
from gateway.cli.outliers import take
from gateway.cli.samples import Samples
from gateway.core.decision import Tensors

ADDRESSES = tuple(f"127.0.0.{i}" for i in range(2, 10))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM"
HALF_HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-k"
FLOOD = 2_000


def attacks(
    target: Target, samples: Samples, ports: tuple[int, int, int], scratch: Path, seconds: float
) -> dict[str, AttackPlan]:
    """Every attack by its name; what they send is written into files of the scratch folder.

    Args:    ports: of HTTP, gRPC and administration.
    """
    data, grpc, admin = ports
    most = target.contract.max_rows
    full = _body(target, take(samples.clean, np.arange(most) % _count(samples.clean)))
    invalid = full.replace(b"]}]", b',"x"]}]', 1)
    assert invalid != full
    strange = _strange(samples, FLOOD)
    one = [_request(target, _body(target, take(strange, np.array([i])))) for i in range(FLOOD)]
    waiting = _request(target, _body(target, take(strange, np.arange(most))), {"prefer": "wait=30"})
    good = _request(target, _body(target, take(samples.clean, np.array([0]))))
    coding = {"content-encoding": "gzip"}

    def plan(mechanism: Any, port: int, connections: int, *payloads: bytes) -> AttackPlan:
        paths = []
        for payload in payloads:
            path = scratch / f"payload-{len(list(scratch.iterdir()))}"
            path.write_bytes(payload)
            paths.append(str(path))
        addresses = ADDRESSES[:1] if mechanism == "send" else ADDRESSES
        return AttackPlan(mechanism, port, connections, addresses, tuple(paths), seconds)

    return {
        "worst bodies": plan("send", data, 4, _request(target, gzip.compress(full), coding)),
        "invalid bodies": plan("send", data, 4, _request(target, gzip.compress(invalid), coding)),
        "queue flood": plan("send", data, 16, *one),
        "half heads": plan("hold", data, 500, HALF_HEAD),
        "idle administration": plan("hold", admin, 1_000),
        "half prefaces": plan("hold", grpc, 500, PREFACE),
        "waiting requests": plan("send", data, 200, waiting),
        "refused rows": plan("send", data, 64, good),
    }


def _count(x: Tensors) -> int:
    return len(next(iter(x.values())))


def _strange(samples: Samples, n: int) -> Tensors:
    """Rows of outliers, no two alike: those of all families, each with a little noise."""
    families: Sequence[Tensors] = list(samples.families.values())
    rng = np.random.default_rng(0)
    rows = {name: np.concatenate([family[name] for family in families]) for name in next(iter(families))}
    picked = take(rows, np.arange(n) % _count(rows))
    return {
        name: np.clip(column + rng.normal(0, 1e-3, column.shape), column.min(), column.max()).astype(
            column.dtype
        )
        if column.dtype.kind == "f"
        else column
        for name, column in picked.items()
    }


def _body(target: Target, x: Tensors) -> bytes:
    return infer_body(target.contract.inputs, x, {}, binary=False)[0]


def _request(target: Target, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request without a key."""
    sent = {"host": target.origin.authority, "content-length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"POST {target.path}/infer HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
