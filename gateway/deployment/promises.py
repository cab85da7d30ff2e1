"""What a certificate promises, in sentences: for the terminal, the report and the status page."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.deployment.certificate import Certificate, FalseAlarm, Selective


@dataclass(frozen=True, slots=True)
class Promise:
    """One statement of a certificate.

    field: of the certificate, as `false_alarm` or `selective.small`; at_most: a share; evidence: what it was
    certified from.
    """

    field: str
    what: str
    at_most: float
    confidence: float
    evidence: str
    cut: float

    def sentence(self) -> str:
        """The statement in one sentence."""
        share, sure = _percent(self.at_most), _percent(self.confidence)
        return f"At most {share} of {self.what}, with {sure} confidence."


def promises(certificate: Certificate) -> list[Promise]:
    """Every statement: of the guards, of each rung, of everything answered."""
    found: list[Promise] = []
    stopped = "good rows are stopped by the guards"
    for field, alarm, what in (
        ("false_alarm", certificate.false_alarm, f"{stopped} together"),
        ("without_features", certificate.without_features, f"{stopped} while the primary is gone"),
    ):
        if alarm is not None and alarm.promised:
            found.append(_of_alarm(field, what, alarm))
    for name, one in certificate.selective.items():
        when = f" while {' and '.join(one.while_gone)} is gone" if one.while_gone else ""
        found.append(_of_selective(f"selective.{name}", f"what {name} answers{when} is wrong", one))
    if certificate.answered is not None:
        what = "everything answered is wrong, while every model works"
        found.append(_of_selective("answered", what, certificate.answered))
    return found


def _of_alarm(field: str, what: str, alarm: FalseAlarm) -> Promise:
    evidence = f"{alarm.n} rows, of which at most {alarm.k - 1} reach the cut"
    if alarm.slices:
        evidence += f", in {len(alarm.slices)} slices with a cut each"
        what += ", and of each slice"
    return Promise(field, what, alarm.budget, 1 - alarm.delta, evidence, alarm.cut)


def _of_selective(field: str, what: str, selective: Selective) -> Promise:
    evidence = (
        f"{selective.errors} wrong of {selective.accepted}, {_percent(round(selective.coverage, 3))} of rows"
    )
    return Promise(field, what, selective.risk, 1 - selective.delta, evidence, selective.cut)


def confidence_sentence(certificate: Certificate) -> str:
    """What holds of all promises together, and over all attempts on the same data."""
    sure = certificate.confidence
    if not sure.promises:
        return "Nothing is promised."
    text = (
        f"Each promise alone holds with {_percent(sure.each)} confidence over the draw of the calibration "
        f"data; all {sure.promises} together with at least {_percent(sure.together)}."
    )
    if sure.attempts > 1:
        text += (
            f" This is attempt {sure.attempts} on these rows: over all attempts, each promise holds with at "
            f"least {_percent(sure.over_attempts)}."
        )
    return text


def _percent(part: float) -> str:
    return f"{100 * part:.4g} %"
