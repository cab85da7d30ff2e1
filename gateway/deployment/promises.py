"""What a certificate promises, in sentences: for the terminal, the report and the status page.

Every place that shows a promise takes it from `in_force`, so none can show one that another withdraws.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gateway.deployment.certificate import Certificate, FalseAlarm, MeanError, NumberRange, Selective
from gateway.policy.conditions import withdrawn_by
from gateway.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class Promise:
    """One statement of a certificate.

    field: of the certificate, as `false_alarm` or `selective.small`; at_most: a share, as text, or a number
    in the unit of `value`; evidence: what it was certified from.
    """

    field: str
    what: str
    at_most: str
    confidence: float
    evidence: str
    cut: float | None

    def sentence(self) -> str:
        """The statement in one sentence."""
        return f"At most {self.at_most} of {self.what}, with {percent(self.confidence)} confidence."


@dataclass(frozen=True, slots=True)
class InForce:
    """What a policy and its certificate promise together.

    promises: those in force, none where there is a reason in `withdrawn`; certified: those that would be in
    force without these reasons; confidence: of all promises in force, or why there are none; not_promised:
    what is left without a promise, one sentence each.
    """

    promises: tuple[Promise, ...]
    certified: tuple[Promise, ...]
    withdrawn: tuple[str, ...]
    confidence: str
    not_promised: tuple[str, ...]

    def sentence_of(self, field: str) -> str:
        """One promise in a sentence that says whether it is in force."""
        found = next((one for one in self.certified if one.field == field), None)
        if found is None:
            return "Nothing is promised of this by itself."
        if self.withdrawn:
            return f"Not in force, because {'; '.join(self.withdrawn)}: {found.sentence()}"
        return found.sentence()


def in_force(policy: Policy, certificate: Certificate, observed: Collection[str]) -> InForce:
    """The promises in force under this policy, which the certificate has been verified for.

    Args:    observed: the guards that are only observed now, because of their `observe`.
    """
    certified = tuple(promises(certificate))
    withdrawn = tuple(withdrawn_by(policy, certificate.conditions, observed))
    left_out = tuple(certificate.not_promised)
    if not withdrawn:
        return InForce(certified, certified, (), confidence_sentence(certificate), left_out)
    why = "; ".join(withdrawn)
    everything = f"Of anything, while this is so: {why}."
    return InForce((), certified, withdrawn, f"No promise is in force: {why}.", (everything, *left_out))


def promises(certificate: Certificate) -> list[Promise]:
    """Every statement: of the guards, of each rung, of everything answered."""
    found: list[Promise] = []
    stopped = "are stopped by the guards"
    for field, alarm, what in (
        ("false_alarm", certificate.false_alarm, f"{stopped} together"),
        ("without_features", certificate.without_features, f"{stopped} while the primary is gone"),
    ):
        if alarm is not None and alarm.promised:
            found.append(_of_alarm(field, what, alarm))
    found += _of_errors(certificate)
    if certificate.absolute_error is not None:
        found.append(_of_mean(certificate.absolute_error))
    return found


def _of_alarm(field: str, what: str, alarm: FalseAlarm) -> Promise:
    evidence = f"{alarm.n} rows, of which at most {alarm.k - 1} reach the cut"
    if not alarm.slices:
        return Promise(
            field, f"good rows {what}", percent(alarm.budget), 1 - alarm.delta, evidence, alarm.cut
        )
    evidence = f"{alarm.n} rows in {len(alarm.slices)} slices, each with a cut of its own"
    rows = f"the good rows of each slice {what}"
    return Promise(field, rows, percent(alarm.budget), 1 - alarm.delta, evidence, None)


def _of_errors(certificate: Certificate) -> list[Promise]:
    """Of each rung and of everything answered. A number is wrong if the truth lies outside its interval."""
    numbers = isinstance(certificate.target, NumberRange)
    wrong = "has its true value outside the interval" if numbers else "is wrong"
    found = []
    for name, one in certificate.selective.items():
        gone = " and ".join(one.while_gone)
        when = f" while {gone} {'is' if len(one.while_gone) == 1 else 'are'} gone" if gone else ""
        what = f"what {name} answers{when} {wrong}"
        found.append(_of_selective(f"selective.{name}", what, one, one.cut, numbers=numbers))
    if certificate.answered is not None:
        what = f"everything answered {wrong}, while every model works"
        found.append(_of_selective("answered", what, certificate.answered, None, numbers=numbers))
    return found


def _of_selective(
    field: str, what: str, selective: Selective, cut: float | None, *, numbers: bool
) -> Promise:
    covered = f"{selective.coverage:.1%}".replace("%", " %")
    errors, accepted = selective.errors, selective.accepted
    counts = f"{errors} of {accepted} true values outside" if numbers else f"{errors} wrong of {accepted}"
    evidence = f"{counts}, {covered} of the rows that reach it"
    return Promise(field, what, percent(selective.risk), 1 - selective.delta, evidence, cut)


def _of_mean(error: MeanError) -> Promise:
    what = f"absolute error on average in everything answered, each counted up to {error.clip:g}"
    evidence = f"{error.n} answers, off by {error.average:.4g} on average"
    return Promise("absolute_error", what, f"{error.mean:g}", 1 - error.delta, evidence, None)


def confidence_sentence(certificate: Certificate) -> str:
    """What holds of all promises together, and over all attempts on the same data."""
    sure = certificate.confidence
    if not sure.promises:
        return "Nothing is promised."
    text = (
        f"Each promise alone holds with {percent(sure.each)} confidence over the draw of the calibration data"
    )
    if sure.promises > 1 and sure.together > 0:
        text += f"; all {sure.promises} together with at least {percent(sure.together)}"
    if sure.attempts > 1:
        text += f". This is attempt {sure.attempts} on these rows: over all attempts "
        known = f"each promise holds with at least {percent(sure.over_attempts)}"
        text += known if sure.over_attempts > 0 else "nothing is left of that confidence"
    return f"{text}."


def percent(part: float) -> str:
    """A share in per cent, with all the digits that a policy may have; below 100 % unless it is."""
    digits = f"{100 * part:.10g}"
    return f"{'99.99999999' if digits == '100' and part < 1 else digits} %"
