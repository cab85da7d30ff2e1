"""The fields of a case that the console shows, the same for its pages and its API."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import orjson

from fallbacks.oip.payload import decode
from fallbacks.review.cases import CaseRecord, CaseState, Claim
from fallbacks.review.store import ReviewStore
from gateway.admin.answers import form_of
from gateway.admin.pictures import CHANNELS
from gateway.admin.preview import PicturePreview, Preview, TextPreview, previews
from gateway.admin.reasons import brief_of, deferral_reasons
from gateway.admin.table import MAX_CELLS, printable
from gateway.deployment.standing_out import standing_out
from gateway.protocol.contract import Contract
from gateway.protocol.targets import Classes, Target
from gateway.serving.gateway import Gateway
from gateway.serving.review_answers import answerable
from gateway.serving.review_summary import format_number, label_text

MIN_BARS = 3
"""From so many numbers on, a picture of their heights says more than their beginning."""


def labels_of(gateway: Gateway) -> tuple[str, ...]:
    """The classes that a reviewer may name; none where the target is no class."""
    return _names(answerable(gateway.loaded.contract))


def _names(target: Target) -> tuple[str, ...]:
    return target.names if isinstance(target, Classes) else ()


def form_fields(gateway: Gateway) -> dict[str, Any]:
    """The form that a reviewer fills in (see `gateway.admin.answers`)."""
    return form_of(gateway.loaded.contract, gateway.loaded.policy.review)


def case_fields(record: CaseRecord, gateway: Gateway, now_s: float) -> dict[str, Any]:
    """The fields of a case in the list; without the suggestion, which reviewers are to see last.

    now_s: of the review store.
    """
    return {
        "id": record.id,
        "principal": record.principal,
        "state": record.state.value,
        "age_s": max(0.0, now_s - record.created_s),
        "case_expires": record.expires_s,
        "reviewer": record.reviewer,
        "lease_until": record.lease_until_s,
        "brief": printable(brief_of(record.why)),
        "why": deferral_reasons(record.why, gateway.loaded.policy),
    }


def row_fields(inputs: dict[str, Any], gateway: Gateway) -> dict[str, Any]:
    """The row as it is shown, and the columns that stand out: [[name, nats], ...], the rarest first."""
    odd = standing_out(gateway.loaded.artifacts.fitted, inputs)
    shown = previews(inputs, gateway.loaded.contract, odd)
    return {"shown": shown, "standing_out": [[printable(name), nats] for name, nats in odd.items()]}


def claim_fields(claim: Claim, gateway: Gateway, base: str) -> dict[str, Any]:
    """Everything that an API client needs to answer the case that it has claimed. base: of its paths."""
    case = claim.case
    row = row_fields(inputs_of(case.payload), gateway)
    has_picture = any(isinstance(part, PicturePreview) for part in row["shown"])
    return {
        "id": case.id,
        "fence": claim.fence,
        "principal": case.principal,
        "why": deferral_reasons(case.why, gateway.loaded.policy),
        "standing_out": row["standing_out"],
        "expires": claim.until_s,
        "case_expires": case.expires_s,
        "form": form_fields(gateway),
        "labels": labels_of(gateway),
        "suggestion": suggestion_fields(case.model_view, gateway),
        "shown": [asdict(part) for part in row["shown"]],
        "image": f"{base}/review/{quote(case.id, safe='')}/image.png" if has_picture else None,
    }


def suggestion_fields(model_view: str, gateway: Gateway) -> list[dict[str, Any]]:
    """A model's view: its likeliest classes by name, its one label, or its number with an interval."""
    view, labels = orjson.loads(model_view), _names(gateway.loaded.contract.target)
    if isinstance(view, list):
        return [
            {"label": labels[int(i)] if int(i) < len(labels) else str(i), "probability": float(p)}
            for i, p in view
            if math.isfinite(p)
        ]
    if "value" in view:
        return [{name: view.get(name) for name in ("value", "lower", "upper")}]
    return [{"label": _label_name(view["label"], gateway), "probability": None}] if "label" in view else []


def _label_name(value: Any, gateway: Gateway) -> str:
    """The class that an output `label` of this value means; the value itself if it is none."""
    target = gateway.loaded.contract.target
    if isinstance(target, Classes):
        values = [label_text(one) if isinstance(one, bytes) else one for one in target.values]
        if value in values:
            return target.names[values.index(value)]
    return printable(str(value))


def answer_fields(record: CaseRecord, gateway: Gateway) -> dict[str, Any] | None:
    """The answer, its time and its reviewer; None unless the case is decided. label: the answer as text."""
    if record.state is not CaseState.DECIDED or record.answer is None:
        return None
    answer, labels = orjson.loads(record.answer), _names(gateway.loaded.contract.target)
    fields = {"at_s": record.decided_s, "by": record.reviewer}
    match answer:
        case {"label": int(label)}:
            return {"label": labels[label] if label < len(labels) else str(label), **fields}
        case {"value": int(value) | float(value)}:
            return {"label": format_number(value), "value": value, **fields}
        case {"none": True}:
            return {"label": "none of these", **fields}
        case _:
            return {"label": "unsure", **fields}


def inputs_of(payload: bytes | None) -> dict[str, Any]:
    """The inputs of a case; none if its payload was deleted or cannot be read."""
    try:
        return decode(payload or b"")
    except ValueError:
        return {}


async def inputs_in(store: ReviewStore, record: CaseRecord) -> dict[str, Any]:
    """The inputs of a stored case."""
    return inputs_of(await store.payload(record.id))


async def list_preview(store: ReviewStore, record: CaseRecord, gateway: Gateway) -> Preview | None:
    """The small picture of a case in the list. Reads short rows of numbers alone: browsers fetch pictures."""
    contract = gateway.loaded.contract
    for spec in contract.inputs:
        if len(spec.shape) == 4 and (spec.shape[1] in CHANNELS or spec.shape[3] in CHANNELS):
            return PicturePreview(spec.name, 1, 1)
    first = contract.inputs[0]
    if len(contract.inputs) == 1 and first.datatype == "BYTES":
        return TextPreview(first.name, ())
    if len(contract.inputs) == 1 and MIN_BARS <= _numbers_of(contract) <= MAX_CELLS:
        shown = previews(await inputs_in(store, record), contract)
        return shown[0] if shown else None
    return None


def _numbers_of(contract: Contract) -> int:
    """How many numbers the first input has a row; an open size counts as too many."""
    return math.prod(size or MAX_CELLS + 1 for size in contract.inputs[0].shape[1:])
