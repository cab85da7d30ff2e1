"""The fields of a case that the console shows, the same for its pages and its API."""

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
from gateway.admin.preview import (
    CHANNELS,
    MAX_CELLS,
    PicturePreview,
    Preview,
    TextPreview,
    deferral_reasons,
    previews,
)
from gateway.serving.gateway import Gateway


def labels_of(gateway: Gateway) -> tuple[str, ...]:
    """The classes that a reviewer may name: the policy's labels, then numbers where it has too few.

    No more than the classes of every exposed output, or an answer would not fit the caller's reply.
    """
    outputs = [spec.shape[-1] for spec in gateway.loaded.contract.outputs if spec.dtype.kind == "f"]
    names, classes = gateway.loaded.policy.labels, min((k for k in outputs if k is not None), default=0)
    return tuple(names[i] if i < len(names) else str(i) for i in range(classes))


def case_fields(record: CaseRecord, gateway: Gateway) -> dict[str, Any]:
    """The fields of a case in the list; without the suggestion, which reviewers are to see last."""
    return {
        "id": record.id,
        "principal": record.principal,
        "state": record.state.value,
        "age_s": max(0.0, time.time() - record.created_s),
        "case_expires": record.expires_s,
        "reviewer": record.reviewer,
        "lease_until": record.lease_until_s,
        "why": deferral_reasons(record.why, gateway.loaded.policy),
    }


def claim_fields(claim: Claim, gateway: Gateway, base: str) -> dict[str, Any]:
    """Everything that an API client needs to answer the case that it has claimed. base: of its paths."""
    case, shown = claim.case, previews(inputs_of(claim.case.payload), gateway.loaded.contract)
    has_picture = any(isinstance(part, PicturePreview) for part in shown)
    return {
        "id": case.id,
        "fence": claim.fence,
        "principal": case.principal,
        "why": deferral_reasons(case.why, gateway.loaded.policy),
        "expires": claim.until_s,
        "case_expires": case.expires_s,
        "labels": labels_of(gateway),
        "suggestion": suggestion_fields(case.model_view, gateway),
        "shown": [asdict(part) for part in shown],
        "image": f"{base}/review/{quote(case.id, safe='')}/image.png" if has_picture else None,
    }


def suggestion_fields(model_view: str, gateway: Gateway) -> list[dict[str, Any]]:
    """The model's likeliest classes, by name."""
    labels = labels_of(gateway)
    return [
        {"label": labels[int(i)] if int(i) < len(labels) else str(i), "probability": float(p)}
        for i, p in orjson.loads(model_view)
        if math.isfinite(p)
    ]


def answer_fields(record: CaseRecord, gateway: Gateway) -> dict[str, Any] | None:
    """The answer, its time and its reviewer; None unless the case is decided."""
    if record.state is not CaseState.DECIDED or record.answer is None:
        return None
    label, labels = orjson.loads(record.answer).get("label"), labels_of(gateway)
    name = "unsure" if label is None else labels[label] if label < len(labels) else str(label)
    return {"label": name, "at_s": record.decided_s, "by": record.reviewer}


def inputs_of(payload: bytes | None) -> dict[str, Any]:
    """The inputs of a case; none if its payload was deleted or cannot be read."""
    try:
        return decode(payload or b"")
    except ValueError:
        return {}


async def previews_of(store: ReviewStore, id_: str, gateway: Gateway) -> list[Preview]:
    """The previews of a stored case's inputs."""
    return previews(inputs_of(await store.payload(id_)), gateway.loaded.contract)


async def list_preview(store: ReviewStore, id_: str, gateway: Gateway) -> Preview | None:
    """The preview of a case in the list. Reads the payload of short rows only: browsers fetch pictures."""
    first = gateway.loaded.contract.inputs[0]
    if len(first.shape) == 4 and (first.shape[1] in CHANNELS or first.shape[3] in CHANNELS):
        return PicturePreview(first.name, 1, 1)
    if first.datatype == "BYTES":
        return TextPreview(first.name, ())
    if math.prod(d or MAX_CELLS for d in first.shape[1:]) > MAX_CELLS:
        return None
    shown = await previews_of(store, id_, gateway)
    return shown[0] if shown else None
