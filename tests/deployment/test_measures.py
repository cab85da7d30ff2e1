"""All guards are measured together: of the input while the model works, of its answer once it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Tensors, Verdict
from gateway.core.errors import ArtifactError
from gateway.core.model import Model
from gateway.core.pipeline import Pipeline
from gateway.core.stage import FeatureStage, Stage
from gateway.deployment.artifacts import Artifacts, load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.ood import FittedOod, InputOnlyOod
from gateway.policy.kinds.squeeze import FittedSqueeze
from guards.rows import Signals
from guards.squeeze import Squeeze
from guards.squeezers import answer_change, variants
from tests.support.deployments import CONFIGS, batch_of, clean_rows, letters, outlier_rows, run


@contextmanager
def compiled(folder: Path) -> Iterator[tuple[Pipeline, Artifacts]]:
    deployment = Deployment.read(folder)
    policy, artifacts = deployment.policy, load_artifacts(deployment)
    try:
        yield compile_policy(policy, artifacts, Stores(None, lambda principal: None, {})), artifacts
    finally:
        artifacts.close()


def ood_of(artifacts: Artifacts, name: str) -> FittedOod:
    fitted = artifacts.fitted.guards[name]
    assert isinstance(fitted, FittedOod)
    return fitted


def input_only(artifacts: Artifacts, name: str) -> InputOnlyOod:
    form = ood_of(artifacts, name).input_only
    assert form is not None
    return form


def squeeze_of(artifacts: Artifacts, name: str) -> Squeeze:
    fitted = artifacts.fitted.guards[name]
    assert isinstance(fitted, FittedSqueeze)
    return fitted.squeeze


def feature_stages(pipeline: Pipeline) -> dict[str, FeatureStage]:
    return {guard.name: guard for guard in pipeline.guards if isinstance(guard, FeatureStage)}


def pictures(n: int) -> NDArray[np.float32]:
    with np.load(CONFIGS / "fashion" / "samples.npz") as held:
        return np.asarray(held["image"][:n] * held["scale"], np.float32)


def test_every_guard_of_fashion_gives_what_its_own_formula_gives() -> None:
    with compiled(CONFIGS / "fashion") as (pipeline, artifacts):
        x = pictures(200)
        answer = artifacts.models["primary"].run({"image": x})
        h, p = answer["features"], answer["probabilities"]
        squeeze = squeeze_of(artifacts, "perturbation")
        signals = Signals(x, h=h, z=answer["logits"])
        expected = {name: ood_of(artifacts, name).full.score(signals) for name in ("ood", "noise")}
        squeezed = artifacts.models["primary"].run({"image": variants(x, squeeze.bits)})["probabilities"]
        hit = squeeze.to_squeeze(h)
        assert 5 < hit.sum() < 60
        expected["perturbation"] = squeeze.score(h, p, np.where(hit, answer_change(p, squeezed), 0.0))

        async def score() -> dict[str, NDArray[np.float64]]:
            ids = tuple(f"r{i}" for i in range(len(x)))
            patient = {name: replace(model, budget_s=60.0) for name, model in pipeline.models.items()}
            batch = Batch(ids, ids, {"image": x}, (now_s() + 60,) * len(x), patient)
            return {name: await s.full.guard.score(batch) for name, s in feature_stages(pipeline).items()}

        found = run(score)
        for name, scores in expected.items():
            np.testing.assert_allclose(found[name], scores, rtol=1e-4, atol=1e-6, err_msg=name)


def test_an_input_of_another_width_is_measured_as_float32(tmp_path: Path) -> None:
    with compiled(letters(tmp_path)) as (pipeline, artifacts):
        without = feature_stages(pipeline)["ood"].without_features
        assert isinstance(without, Stage)

        async def score() -> None:
            x = clean_rows(4)
            wide = batch_of(x.astype(np.float64))
            expected = input_only(artifacts, "ood").score(Signals(None, x))
            np.testing.assert_allclose(await without.guard.score(wide), expected, rtol=1e-9)

        run(score)


def test_a_slice_keeps_what_was_measured_and_measures_nothing_again() -> None:
    class Doubled:
        runs = 0

        def run(self, given: Tensors, /) -> NDArray[Any]:
            self.runs += 1
            return 2 * given["x"]

    async def twice() -> None:
        measure, batch = Doubled(), batch_of(clean_rows(4))
        given = {"x": np.arange(4.0)}
        np.testing.assert_array_equal(batch.measure(measure, given), [0, 2, 4, 6])
        np.testing.assert_array_equal(batch.take(np.array([3, 1])).measure(measure, given), [6, 2])
        assert measure.runs == 1

    run(twice)


def test_the_input_is_measured_while_the_model_is_at_work(tmp_path: Path) -> None:
    with compiled(letters(tmp_path)) as (pipeline, artifacts):
        events: list[str] = []

        class Slow:
            async def predict(self, inputs: Tensors, /) -> Tensors:
                events.append("model begins")
                await asyncio.sleep(0.01)
                events.append("model ends")
                return artifacts.models["primary"].run(inputs)

        stage = feature_stages(pipeline)["ood"]

        def ahead(batch: Batch) -> None:
            events.append("input measured")
            stage.prefetch(batch)

        async def assess() -> None:
            models = {"primary": Model("primary", Slow(), 5.0)}
            batch = batch_of(clean_rows(3)).with_models(models)
            found = await replace(stage, prefetch=ahead).assess(batch, now_s() + 5)
            assert found.all_allowed

        run(assess)
        assert events == ["model begins", "input measured", "model ends"]


def test_what_fails_ahead_of_time_counts_only_if_the_guard_fails_too(tmp_path: Path) -> None:
    def broken(batch: Batch) -> None:
        raise RuntimeError("broken on purpose")

    with compiled(letters(tmp_path)) as (pipeline, _):
        stage = replace(feature_stages(pipeline)["ood"], prefetch=broken)

        async def assess() -> None:
            found = await stage.assess(batch_of(outlier_rows(3)).with_models(pipeline.models), now_s() + 5)
            assert not found.errors
            assert (found.verdicts == Verdict.DEFER).all()

        run(assess)


def test_a_guard_that_the_models_outputs_do_not_suit_is_refused_at_load(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    deployment = Deployment.read(folder)
    policy, artifacts = deployment.policy, load_artifacts(deployment)
    try:
        only = FittedOod("ood", input_only(artifacts, "ood").ood, input_only(artifacts, "ood"))
        answer = {name: a for name, a in artifacts.kept.answer.items() if name != "features"}
        without = replace(artifacts, kept=replace(artifacts.kept, answer=answer))
        stores = Stores(None, lambda principal: None, {})
        with pytest.raises(ArtifactError, match="needs features, and the model's answer holds none"):
            compile_policy(policy, without, stores)
        assert compile_policy(
            policy, replace(without, fitted=replace(artifacts.fitted, guards={"ood": only})), stores
        ).guards
    finally:
        artifacts.close()
