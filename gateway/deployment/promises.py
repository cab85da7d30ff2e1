"""What a certificate promises, in sentences: for the terminal, the report and the status page."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.deployment.certificate import Certificate, FalseAlarm, Selective


@dataclass(frozen=True, slots=True)
class Promise:
    """One statement of a certificate. at_most: a share; evidence: what it was certified from."""

    what: str
    at_most: float
    confidence: float
    evidence: str
    cut: float

    def sentence(self) -> str:
        """The statement in one sentence."""
        return (
            f"At most {_percent(self.at_most)} of {self.what}, with {_percent(self.confidence)} confidence."
        )


def promises(certificate: Certificate) -> list[Promise]:
    """Every statement: of the guards, of each rung, of everything answered."""
    alarms = (
        (certificate.false_alarm, "good rows are stopped by the guards together"),
        (certificate.without_features, "good rows are stopped by the guards while the primary is gone"),
    )
    found = [of_alarm(alarm, what) for alarm, what in alarms if alarm and alarm.promised]
    found += [of_rung(name, selective) for name, selective in certificate.selective.items()]
    if certificate.answered is not None:
        found.append(of_answered(certificate.answered))
    return found


def of_alarm(alarm: FalseAlarm, what: str) -> Promise:
    """A promise about the guards."""
    evidence = f"{alarm.k} of {alarm.n} rows above the cut"
    if alarm.slices:
        evidence += f", in {len(alarm.slices)} slices with a cut each"
        what += ", and of each slice"
    return Promise(what, alarm.budget, 1 - alarm.delta, evidence, alarm.cut)


def of_rung(name: str, selective: Selective) -> Promise:
    """A promise about one rung's answers."""
    when = f" while {' and '.join(selective.while_gone)} is gone" if selective.while_gone else ""
    return _of_selective(f"what {name} answers{when} is wrong", selective)


def of_answered(selective: Selective) -> Promise:
    """The promise about all rungs together."""
    return _of_selective("everything answered is wrong, while every model works", selective)


def _of_selective(what: str, selective: Selective) -> Promise:
    evidence = f"{selective.errors} wrong of {selective.accepted}, {selective.coverage:.0%} of rows"
    return Promise(what, selective.risk, 1 - selective.delta, evidence, selective.cut)


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
