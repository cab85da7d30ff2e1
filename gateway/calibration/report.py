"""A certificate as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from gateway.deployment.certificate import Certificate, FalseAlarm, Selective


def certificate_table(certificate: Certificate) -> Table:
    """Every promise of the certificate, one a line."""
    table = Table(title=f"{certificate.deployment}: what is certified, for {certificate.population}")
    for column in ("promise", "at most", "confidence", "from", "cut"):
        table.add_column(column)
    for what, alarm in (
        ("good rows stopped by the guards", certificate.false_alarm),
        ("the same, while the primary is gone", certificate.without_features),
    ):
        if alarm is not None:
            table.add_row(what, *_alarm(alarm))
    for rung, selective in certificate.selective.items():
        table.add_row(
            f"wrong among what {rung} answers ({selective.coverage:.0%} of rows)", *_selective(selective)
        )
    if certificate.answered is not None:
        both = certificate.answered
        table.add_row(f"wrong among everything answered ({both.coverage:.0%} of rows)", *_selective(both))
    return table


def _alarm(alarm: FalseAlarm) -> tuple[str, str, str, str]:
    source = f"{alarm.k} of {alarm.n} rows above the cut"
    return f"{alarm.budget:.1%}", f"{1 - alarm.delta:.0%}", source, f"{alarm.cut:.3f} nats"


def _selective(selective: Selective) -> tuple[str, str, str, str]:
    source = f"{selective.errors} wrong of {selective.accepted}"
    return f"{selective.risk:.1%}", f"{1 - selective.delta:.0%}", source, f"{selective.cut:.4f}"
