"""A model that goes on to answer, but wrongly: it is noticed, and then not served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fallbacks.breaker import BreakerState
from fallbacks.predictor import Predictor, Tensors
from fallbacks.stuck import REPEATS_TO_ALARM
from gateway.serving import model_watch
from tests.support.data_planes import PlaneFixture, keys_for, plane_of
from tests.support.deployments import FULL_RATE, letters

Fault = Callable[[Tensors], Tensors]
PRIMARY = "primary"


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlaneFixture]:
    monkeypatch.setattr(model_watch, "WATCH_EVERY_S", 0.05)
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, **keys_for(folder)) as made:
        yield made


class Faulty:
    """A model whose answers change as `fault` says."""

    def __init__(self, model: Predictor) -> None:
        self.model = model
        self.fault: Fault = lambda outputs: outputs

    async def predict(self, inputs: Tensors, /) -> Tensors:
        outputs = await self.model.predict(inputs)
        return self.fault({name: array.copy() for name, array in outputs.items()})


def made_faulty(plane: PlaneFixture) -> Faulty:
    breaker = plane.gateway.loaded.breakers[PRIMARY]
    faulty = Faulty(breaker._predictor)
    breaker._predictor = faulty
    return faulty


def one_class_for_all(outputs: Tensors) -> Tensors:
    p = np.zeros_like(outputs["probabilities"])
    p[:, 3] = 1
    return {**outputs, "probabilities": p}


def the_next_rows_answer(outputs: Tensors) -> Tensors:
    return {name: np.roll(array, 1, axis=0) for name, array in outputs.items()}


def logits(outputs: Tensors) -> Tensors:
    return {**outputs, "probabilities": outputs["probabilities"] * np.float32(37.5) + np.float32(1)}


def another_type(outputs: Tensors) -> Tensors:
    return {**outputs, "probabilities": outputs["probabilities"].astype(np.float64)}


async def by_the_primary(plane: PlaneFixture) -> int:
    """Of a hundred good rows, one a request, how many the primary answered."""
    replies = [await plane.ada.infer(plane.good[i : i + 1]) for i in range(len(plane.good))]
    return sum(reply.headers["x-failsafe-outcome"] == "served" for reply in replies)


@pytest.mark.parametrize("fault", [one_class_for_all, the_next_rows_answer])
def test_a_model_that_answers_known_rows_otherwise_is_not_called_until_it_answers_them_again(
    plane: PlaneFixture, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        faulty, breaker = made_faulty(plane), plane.gateway.loaded.breakers[PRIMARY]
        assert await by_the_primary(plane) > 50
        faulty.fault = fault
        await until(lambda: breaker.state is BreakerState.OPEN)
        assert await by_the_primary(plane) == 0
        faulty.fault = lambda outputs: outputs
        breaker._entered_s -= 60.0  # the circuit has been open for long enough
        await until(lambda: breaker.state is BreakerState.CLOSED)
        assert await by_the_primary(plane) > 50

    plane.run(main)
    said = [one.getMessage() for one in caplog.records if PRIMARY in one.getMessage()]
    assert said[0] == (
        "primary: it answers known rows otherwise than before; it is not called until it answers them again"
    )
    assert len([one for one in said if "otherwise" in one]) == 1, "once, not at every look"


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(500):
        if reached():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not within ten seconds")


@pytest.fixture
def unwatched(plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch) -> PlaneFixture:
    """Nothing but callers' rows tells how the model answers."""
    monkeypatch.setattr(model_watch, "WATCH_EVERY_S", 1e6)
    plane.run(partial(asyncio.sleep, 0.1))  # the look that was due before
    return plane


def test_a_model_that_answers_every_row_alike_is_found_out_by_the_rows_of_callers(
    unwatched: PlaneFixture,
) -> None:
    async def main() -> None:
        faulty, breaker = made_faulty(unwatched), unwatched.gateway.loaded.breakers[PRIMARY]
        assert await by_the_primary(unwatched) > 50
        faulty.fault = one_class_for_all
        assert await by_the_primary(unwatched) <= REPEATS_TO_ALARM + 1
        assert breaker.state is BreakerState.OPEN

    unwatched.run(main)


def test_a_batch_that_is_answered_alike_is_not_served_at_all(unwatched: PlaneFixture) -> None:
    async def main() -> None:
        made_faulty(unwatched).fault = one_class_for_all
        reply = await unwatched.ada.infer(unwatched.good[:32])
        assert reply.headers["x-failsafe-outcome"] != "served"

    unwatched.run(main)


@pytest.mark.parametrize("fault", [logits, another_type])
def test_what_is_no_answer_is_not_served_from_the_first_row_on(unwatched: PlaneFixture, fault: Fault) -> None:
    async def main() -> None:
        made_faulty(unwatched).fault = fault
        assert await by_the_primary(unwatched) == 0

    unwatched.run(main)
