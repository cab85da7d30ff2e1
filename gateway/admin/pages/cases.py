"""A case as people and scripts see it: the same facts for the page and for JSON."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import orjson

from fallbacks.oip.payload import decode
from fallbacks.review.cases import CaseRecord, CaseState, Claim
from fallbacks.review.store import ReviewStore
from gateway.admin.preview import CHANNELS, MAX_CELLS, Picture, Preview, Text, previews, why
from gateway.serving.gateway import Gateway


def labels_of(gateway: Gateway) -> tuple[str, ...]:
    """The classes that a person may name: the policy's labels, numbers where it names too few.

    Never more than every exposed output has room for, or an answer could not be given to its caller.
    """
    outputs = [spec.shape[-1] for spec in gateway.loaded.contract.outputs if spec.dtype.kind == "f"]
    names, room = gateway.loaded.policy.labels, min((k for k in outputs if k is not None), default=0)
    return tuple(names[i] if i < len(names) else str(i) for i in range(room))


def about(record: CaseRecord, gateway: Gateway) -> dict[str, Any]:
    """A case in short; without the model's opinion, which people are to see last."""
    return {
        "id": record.id,
        "principal": record.principal,
        "state": record.state.value,
        "age_s": max(0.0, time.time() - record.created_s),
        "case_expires": record.expires_s,
        "reviewer": record.reviewer,
        "lease_until": record.lease_until_s,
        "why": why(record.why, gateway.loaded.policy),
    }


def claimed(held: Claim, gateway: Gateway) -> dict[str, Any]:
    """Everything that a script needs to answer the case that it just claimed."""
    one, shown = held.case, previews(decoded(held.case.payload), gateway.loaded.contract)
    has_picture = any(isinstance(part, Picture) for part in shown)
    return {
        "id": one.id,
        "fence": held.fence,
        "principal": one.principal,
        "why": why(one.why, gateway.loaded.policy),
        "expires": held.until_s,
        "case_expires": one.expires_s,
        "labels": labels_of(gateway),
        "suggestion": suggestion(one.model_view, gateway),
        "shown": [asdict(part) for part in shown],
        "image": f"/review/{quote(one.id, safe='')}/image.png" if has_picture else None,
    }


def suggestion(model_view: str, gateway: Gateway) -> list[dict[str, Any]]:
    """The model's likeliest classes, by name."""
    labels = labels_of(gateway)
    return [
        {"label": labels[int(i)] if int(i) < len(labels) else str(i), "probability": float(p)}
        for i, p in orjson.loads(model_view)
        if math.isfinite(p)
    ]


def answer_of(record: CaseRecord, gateway: Gateway) -> dict[str, Any] | None:
    """Who said what, once somebody did."""
    if record.state is not CaseState.DECIDED or record.answer is None:
        return None
    label, labels = orjson.loads(record.answer).get("label"), labels_of(gateway)
    name = "unsure" if label is None else labels[label] if label < len(labels) else str(label)
    return {"label": name, "at_s": record.decided_s, "by": record.reviewer}


def decoded(payload: bytes | None) -> dict[str, Any]:
    """The inputs of a case; none where the payload is gone or cannot be read."""
    try:
        return decode(payload or b"")
    except ValueError:
        return {}


async def shown_of(store: ReviewStore, id_: str, gateway: Gateway) -> list[Preview]:
    """What there is to look at."""
    return previews(decoded(await store.payload(id_)), gateway.loaded.contract)


async def small(store: ReviewStore, id_: str, gateway: Gateway) -> Preview | None:
    """What stands for a case in the list. Only short rows are read for it: browsers fetch the pictures."""
    first = gateway.loaded.contract.inputs[0]
    if len(first.shape) == 4 and (first.shape[1] in CHANNELS or first.shape[3] in CHANNELS):
        return Picture(first.name, 1, 1)
    if first.datatype == "BYTES":
        return Text(first.name, ())
    if math.prod(d or MAX_CELLS for d in first.shape[1:]) > MAX_CELLS:
        return None
    shown = await shown_of(store, id_, gateway)
    return shown[0] if shown else None
