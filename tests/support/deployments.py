"""Copies of configs/letters to change and to break, gateways over them, and models that fail."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.access.callers import add_key
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Tensors
from gateway.core.model import Predictor
from gateway.core.record import RequestRecord
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.certificate import SCORES_FILE, load_certificate, policy_digest
from gateway.deployment.certification.recompute import recomputed
from gateway.deployment.certification.scores_file import load_scores
from gateway.deployment.deployment import VAR, Deployment
from gateway.serving.gateway import Gateway
from tests.support.served import CONFIGS, clean_rows, outlier_rows

__all__ = ["CONFIGS", "clean_rows", "outlier_rows"]

T = TypeVar("T")
Rows = NDArray[np.float32]
FILES = ("gateway.yaml", "primary.onnx", "fallback.onnx", "guards.npz", "scores.npz", "certificate.json")
LONGEST_S = 60.0
"""The longest deadline that a policy may have."""
FULL_RATE = ("per_s: *, burst: *", "per_s: 1000000, burst: 1000000")


def letters(to: Path, *changes: tuple[str, str], patient: bool = True, history: bool = True) -> Path:
    """What configs/letters needs to serve, in a folder of its own, with some text of its policy replaced.

    Patient: every budget and the deadline are twenty times as long, so that a busy machine changes nothing.
    History: with the guard that judges by earlier rows.
    """
    folder = to / "letters"
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(CONFIGS / "letters" / name, folder / name)
    if not history:
        drop_queries(folder)
    if patient:
        be_patient(folder)
    edit(folder, *changes)
    return folder


def drop_queries(folder: Path) -> None:
    """Takes the guard of kind `queries` and its waiver out, if there is one: no certificate binds them."""
    path = folder / "gateway.yaml"
    text = re.sub(r"  - name: queries .*?on_error: allow\n", "", path.read_text(), flags=re.DOTALL)
    path.write_text(re.sub(r"waivers: \{queries: .*\}\n\n", "", text))


def be_patient(folder: Path) -> None:
    """Makes every budget and the deadline of a deployment twenty times as long, or as long as they may be."""
    path = folder / "gateway.yaml"
    text = path.read_text()
    deadline = re.search(r"^deadline_s: ([0-9.]+)", text, re.MULTILINE)
    assert deadline is not None
    times = min(20.0, LONGEST_S / float(deadline[1]))

    def longer(found: re.Match[str]) -> str:
        return f"{found[1]}: {float(found[2]) * times:.12g}"

    path.write_text(re.sub(r"(budget_s|deadline_s): ([0-9.]+)", longer, text))


def edit(folder: Path, *changes: tuple[str, str]) -> None:
    """Replaces text in the policy; each old text, in which * is any number, must be there exactly once."""
    path = folder / "gateway.yaml"
    text = path.read_text()
    for old, new in changes:
        pattern = re.compile(re.escape(old).replace(r"\*", "[0-9.]+"))
        found = pattern.findall(text)
        assert len(found) == 1, f"{old!r} is there {len(found)} times"
        text = text.replace(found[0], new)
    path.write_text(text)


def rebound(folder: Path, *changes: tuple[str, str]) -> None:
    """Edits the policy and binds the certificate to it, as if it were made for it: for tests of serving."""
    edit(folder, *changes)
    policy, certificate = Deployment.read(folder).policy, load_certificate(folder)
    found = recomputed(policy, certificate, load_scores(folder / SCORES_FILE, policy))
    digests = certificate.digests.model_copy(update={"policy": policy_digest(policy)})
    update = {"digests": digests, "deployment": policy.name}
    found.model_copy(update=update).write(folder)


def load(folder: Path) -> None:
    """What a start does before it serves: raises PolicyError or ArtifactError."""
    load_artifacts(Deployment.read(folder)).close()


def key_for(folder: Path, name: str, tier: str = "trusted", per_s: float | None = None, *scopes: str) -> str:
    """A new caller's key."""
    return add_key(folder / VAR, name, tier=tier, per_s=per_s, scopes=frozenset(scopes or ("infer",)))


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine to its end on a real loop, as the models' threads need."""
    return asyncio.run(main())


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Gateway]:
    """A gateway that serves, closed at the end."""
    gateway = Gateway.open(folder)
    gateway.start()
    try:
        yield gateway
    finally:
        await gateway.close()


def batch_of(x: Rows, who: str = "tester", within_s: float = 10.0, name: str = "r") -> Batch:
    """Rows of one caller, due in `within_s`."""
    n = len(x)
    ids = tuple(f"{name}{i}" for i in range(n))
    return Batch(ids, (who,) * n, {"attributes": x}, (now_s() + within_s,) * n)


def record_of(*decisions: Decision, name: str = "d", who: str = "tester") -> RequestRecord:
    """A finished request."""
    return RequestRecord(name, who, "letters@1#0", "enforce", 1_700_000_000.0, 0.0125, decisions)


class Raises:
    """A model that breaks."""

    async def predict(self, inputs: Tensors, /) -> Tensors:
        raise RuntimeError("broken on purpose")


class Hangs:
    """A model that never answers."""

    async def predict(self, inputs: Tensors, /) -> Tensors:
        await asyncio.sleep(3600)
        return {}


@dataclass
class NotANumber:
    """A model whose outputs are NaN, for every row or for those that equal a given one."""

    inner: Predictor
    row: Rows | None = None

    async def predict(self, inputs: Tensors, /) -> Tensors:
        x = inputs["attributes"]
        spoiled = np.ones(len(x), bool) if self.row is None else (x == self.row).all(axis=1)
        outputs = {name: array.copy() for name, array in (await self.inner.predict(inputs)).items()}
        outputs["probabilities"][spoiled] = np.nan
        return outputs


@dataclass
class Switch:
    """A model that is broken or not, as a test wants it, and that counts how often it is asked."""

    inner: Predictor
    broken: bool = False
    asked: list[int] = field(default_factory=list)

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.asked.append(len(next(iter(inputs.values()))))
        if self.broken:
            raise RuntimeError("broken on purpose")
        return await self.inner.predict(inputs)


def predictor_of(gateway: Gateway, rung: int = 0) -> Predictor:
    """What answers for a rung."""
    return gateway.loaded.pipeline.rungs[rung].model.predictor


def swap(gateway: Gateway, predictor: Predictor, rung: int = 0) -> None:
    """Puts another predictor behind a rung of the pipeline in force."""
    pipeline = gateway.loaded.pipeline
    old = pipeline.rungs[rung]
    rungs = list(pipeline.rungs)
    rungs[rung] = replace(old, model=replace(old.model, predictor=predictor))
    gateway.loaded = replace(gateway.loaded, pipeline=replace(pipeline, rungs=tuple(rungs)))
