"""Where the models of a new deployment are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from gateway.core.errors import PolicyError, Problem
from gateway.scaffold.draft import DraftModel, budget_s

RUNG_NAMES = ("primary", "fallback", "fallback2")
MODEL_PATH = re.compile(r"^(?P<server>.+?)/v2/models/(?P<model>[^/]+)/?$")


@dataclass(frozen=True, slots=True)
class Sources:
    """Files in the order of the rungs; upstream: the URL of a model in another server, asked before them."""

    files: tuple[Path, ...]
    upstream: str | None = None

    def __post_init__(self) -> None:
        if not self.files and self.upstream is None:
            raise PolicyError([Problem("--model", "is missing: give an ONNX file, or --upstream URL")])


def draft_models(sources: Sources) -> tuple[DraftModel, ...]:
    """One rung a model. Raises PolicyError for a URL that names no model."""
    found: list[DraftModel] = []
    if sources.upstream is not None:
        at = MODEL_PATH.match(sources.upstream)
        if at is None:
            what = (
                f"{sources.upstream!r} names no model; give http://HOST:PORT/v2/models/NAME (or grpc://...)"
            )
            raise PolicyError([Problem("--upstream", what)])
        model = unquote(at["model"])
        found.append(DraftModel(RUNG_NAMES[0], {}, budget_s(0.0), url=at["server"], server_model=model))
    for _ in sources.files:
        rung = RUNG_NAMES[len(found)]
        found.append(DraftModel(rung, {}, budget_s(0.0), path=f"{rung}.onnx"))
    return tuple(found)
