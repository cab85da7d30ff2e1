"""The report as one HTML text: every section's content, and the template that shows it.

Everything shown may come from data that an attacker wrote: label names, texts, the file's name. So the
template escapes all of it, characters that do not print are made visible, and the page's own policy allows
neither scripts nor anything from elsewhere.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.calibration.evidence import Evidence
from gateway.calibration.page.curves import rung_plots
from gateway.calibration.page.deciles import number_slices
from gateway.calibration.page.histograms import guard_lines, guard_plots, input_only_stopped
from gateway.calibration.page.intervals import number_plots, rung_errors
from gateway.calibration.page.load import load_lines
from gateway.calibration.page.reliability import compare
from gateway.calibration.page.rows import nearest_refused, worst_accepted
from gateway.calibration.page.templates import templates_of
from gateway.calibration.page.truth import STEPS
from gateway.calibration.slices import FLAG_FACTOR, FLAG_ROWS, class_names, class_slices
from gateway.calibration.told_prices import prices_told
from gateway.deployment.certificate import Certificate
from gateway.deployment.promises import in_force
from gateway.policy.observation import observed_at
from gateway.policy.schema import Policy

MOST_SLICES = 20
RATES_A_DAY = (1_000, 10_000, 100_000, 1_000_000)
NEVER_PROMISED = (
    "That an attacker who knows the guards is stopped. An attacker who adapts to them can pass.",
    "Anything about rows of another population: other cameras, customers, seasons or languages than those "
    "of the calibration data. The guards stop many such rows, but no share of them is promised.",
    "Anything about a single class, range of numbers, subgroup or caller, unless a promise names it: the "
    "shares are averages.",
)
FOLDS = {
    "fit": "to fit the guards",
    "tail": "for the rarity of scores",
    "cut": "for the cut of the guards",
    "risk": "for the cuts of the checks",
}

_templates = templates_of()


def render_report(certificate: Certificate, policy: Policy, evidence: Evidence, made_s: float) -> str:
    """The whole page.

    Args:    made_s: when the certificate was made, Unix time.
    Cost:    0.4 s for 7,000 rows of ten classes, 4 s for 20,000 rows of 1,000 classes, on one core.
    """
    labels = class_names(policy, certificate)
    return _templates.get_template("report.html").render(
        certificate=certificate,
        policy=policy,
        judged=len(evidence.rows),
        made_s=made_s,
        holds=in_force(policy, certificate, observed_at(policy.guards, datetime.fromtimestamp(made_s, UTC))),
        never_promised=NEVER_PROMISED,
        **_guards(certificate, evidence, policy.false_alarm_budget),
        rungs=rung_plots(certificate, evidence),
        checked=any(rung.suspicion is not None for rung in evidence.rungs),
        reliability=compare(evidence) if policy.task == "classification" else None,
        **_numbers(policy, evidence),
        steps=STEPS,
        slices=class_slices(evidence, labels, policy.false_alarm_budget, certificate.samples.rows),
        most_slices=MOST_SLICES,
        flag={"rows": FLAG_ROWS, "factor": FLAG_FACTOR},
        accepted=worst_accepted(evidence, labels),
        refused=nearest_refused(evidence, labels),
        rates=RATES_A_DAY,
        load=load_lines(evidence, review=policy.review is not None),
        budgets=[prices_told(name, fitted) for name, fitted in evidence.prices.items()],
        folds=FOLDS,
    )


def _numbers(policy: Policy, evidence: Evidence) -> dict[str, Any]:
    return {
        "number_plots": number_plots(evidence, policy.answered_error),
        "rung_errors": rung_errors(evidence),
        "number_slices": number_slices(evidence, policy.false_alarm_budget, policy.answered_error),
    }


def _guards(certificate: Certificate, evidence: Evidence, budget: float) -> dict[str, Any]:
    input_only = input_only_stopped(evidence)
    return {
        "guards": guard_lines(evidence),
        "guard_plots": guard_plots(certificate, evidence, budget),
        "stopped": float(evidence.stopped.mean()),
        "input_only_stopped": None if input_only is None else float(input_only.mean()),
    }
