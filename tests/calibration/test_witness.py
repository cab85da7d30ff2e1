"""No printed promise is broken in more than its delta: random policies, calibrated and then served.

Each calibration draws a population with known truth, rows of it, and a random policy. The deployment is then
served in process, and each promise of its certificate is compared with what the gateway does to the whole
population, or to a fresh sample of it.

*Broken* is certain: for an exact population the true share is above the promise; for a fresh sample the exact
binomial test rejects "at most as promised" at level `LEVEL`. So one promise is found broken with probability
at most delta + `LEVEL`, over every calibration that was asked for it: a refused one breaks nothing. How often
that happens is held against a binomial quantile, at level `FAMILY` for all kinds of promises together. That
the count would find a broken promise is shown by certificates whose cut is moved a little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import PolicyError
from gateway.deployment.certificate import Certificate, load_certificate
from gateway.deployment.deployment import Deployment
from gateway.policy.schema import Policy
from tests.support.population import Population, Truth
from tests.support.populations import ALL
from tests.support.random_policies import DELTA, Chances
from tests.support.witness import Measured, measure, served_while_gone

CALIBRATIONS, SAMPLES = 70, 1500
LEVEL, FAMILY = 0.01, 1e-3
KINDS = (
    "false_alarm",
    "false_alarm by slice",
    "without_features",
    "without_features by slice",
    "selective rung0",
    "selective rung1",
    "selective rung2",
    "answered",
)
PLANTED = 20


@dataclass(frozen=True)
class Case:
    """One calibration. certificate: None where it was refused, for the reason in `refused`."""

    seed: int
    population: Population
    folder: Path
    truth: Truth
    refused: str
    measured: tuple[Measured, ...]

    @property
    def policy(self) -> Policy:
        return Deployment.read(self.folder).policy

    def measure(self, edited: Certificate | None = None) -> tuple[Measured, ...]:
        """The promises as the folder's certificate, or an edited one, states them, and as it is served."""
        policy, truth = self.policy, self.truth
        ends = served_while_gone(self.folder, truth.x, max(1, len(policy.rungs) - 1), edited)
        answer = self.population.answers(truth.x)[0]
        return tuple(measure(edited or load_certificate(self.folder), policy, truth, answer, ends))

    def asks(self, kind: str) -> bool:
        """Whether the policy states what this kind of promise says, or it was printed."""
        rungs = {rung.name: any(check.enforce for check in rung.checks) for rung in self.policy.rungs}
        what, _, rung = kind.partition(" ")
        return rungs.get(rung, False) if what == "selective" else what == kind or self.has(kind)

    def has(self, kind: str) -> bool:
        return any(one.kind == kind for one in self.measured)

    def broken(self, kind: str) -> bool:
        return any(one.kind == kind and one.broken(LEVEL) for one in self.measured)

    def __str__(self) -> str:
        text = (self.folder / "gateway.yaml").read_text()
        return f"seed {self.seed}, {self.population.name}:\n{self.measured}\n{text}"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    errors = {population.name: population.errors() for population in ALL}
    found = []
    for seed in range(CALIBRATIONS):
        population = ALL[seed % len(ALL)]
        folder = tmp_path_factory.mktemp("witness")
        found.append(calibrated(seed, population, errors[population.name], folder))
    return found


def calibrated(seed: int, population: Population, errors: tuple[float, ...], folder: Path) -> Case:
    rng = np.random.default_rng(seed)
    (folder / "gateway.yaml").write_text(Chances(rng, population, errors).text())
    data = population.write(folder, rng, SAMPLES)
    truth = population.truth(rng)
    try:
        calibrate(Deployment.read(folder), data)
    except PolicyError as refused:
        return Case(seed, population, folder, truth, str(refused), ())
    measured = Case(seed, population, folder, truth, "", ()).measure()
    return Case(seed, population, folder, truth, "", measured)


def most_broken(asked: int) -> int:
    """How many of so many promises may be found broken, at level FAMILY over all kinds."""
    return int(binom.ppf(1 - FAMILY / len(KINDS), asked, DELTA + LEVEL))


@pytest.mark.parametrize("kind", KINDS)
def test_a_printed_promise_is_broken_in_no_more_than_delta_of_calibrations(
    cases: list[Case], kind: str
) -> None:
    asked = [case for case in cases if case.asks(kind)]
    broken = [case for case in asked if case.broken(kind)]
    limit = most_broken(len(asked))
    assert len(broken) <= limit, "\n".join(
        [
            f"{kind}: broken in {len(broken)} of {len(asked)} calibrations, at most {limit} expected",
            *map(str, broken),
        ]
    )


def test_most_calibrations_are_not_refused_and_every_kind_of_promise_is_printed(cases: list[Case]) -> None:
    refused = [case.refused for case in cases if case.refused]
    assert len(refused) <= CALIBRATIONS / 3, "\n".join(refused)
    printed = {kind: sum(case.has(kind) for case in cases) for kind in KINDS}
    assert min(printed.values()) >= 1, printed
    assert min(printed[kind] for kind in ("false_alarm", "answered")) >= CALIBRATIONS / 2, printed
    assert min(printed[kind] for kind in ("without_features", "selective rung0")) >= PLANTED, printed


def lower_alarm(certificate: Certificate) -> Certificate:
    """0.7 nats: guards stop about twice as many rows."""
    alarm = certificate.false_alarm
    assert alarm is not None
    lowered = [one.model_copy(update={"cut": one.cut - 0.7}) for one in alarm.slices]
    moved = alarm.model_copy(update={"cut": alarm.cut - 0.7, "slices": lowered})
    return certificate.model_copy(update={"false_alarm": moved})


def lower_input_only_alarm(certificate: Certificate) -> Certificate:
    turned = certificate.model_copy(update={"false_alarm": certificate.without_features})
    return certificate.model_copy(update={"without_features": lower_alarm(turned).false_alarm})


def higher_confidence_cuts(certificate: Certificate) -> Certificate:
    """Twice as far from certainty: answers that are less sure leave."""
    selective = {
        name: one.model_copy(update={"cut": 2 * one.cut}) for name, one in certificate.selective.items()
    }
    return certificate.model_copy(update={"selective": selective})


PLANTS: dict[str, Callable[[Certificate], Certificate]] = {
    "false_alarm": lower_alarm,
    "without_features": lower_input_only_alarm,
    "selective rung0": higher_confidence_cuts,
}


@pytest.mark.parametrize("kind", PLANTS)
def test_the_count_finds_a_certificate_whose_cut_is_moved_a_little(cases: list[Case], kind: str) -> None:
    """The negative control: the same count on edited certificates, served although a load refuses them."""
    chosen = [case for case in cases if case.has(kind) and all(g.enforce for g in case.policy.guards)]
    broken = 0
    for case in chosen[:PLANTED]:
        edited = PLANTS[kind](load_certificate(case.folder))
        broken += any(one.kind == kind and one.broken(LEVEL) for one in case.measure(edited))
    assert broken > most_broken(len(chosen[:PLANTED])), f"{broken} of {len(chosen[:PLANTED])}"
