"""What the attacks gave: plain data, which the table, the page and the JSON file show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.redteam.run import Ended

JSON_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One attack on one row. row: its place among the attacked samples.

    queries: sent, repeats after a refusal included; nearest: the distance of the nearest row that was
    answered with another class, None without one; first_alarm: the number of the first query that was not
    served for a reason of budgets or abstention, None without one; by: how the successful row ended.
    """

    row: int
    ended: Ended
    queries: int
    nearest: float | None
    first_alarm: int | None
    by: str
    outcomes: dict[str, int]
    reasons: dict[str, int]
    seconds: float
    waited_s: float

    @property
    def counted(self) -> bool:
        """Whether it ended by itself or at the limit of queries, and not because time ran out."""
        return self.ended in ("success", "queries", "stuck")


@dataclass(frozen=True, slots=True)
class Harm:
    """How honest rows ended: all, those not served, and these by outcome."""

    rows: int = 0
    harmed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Evasion:
    """One attack by rows that are moved. runs, bare: of the gateway and of the bare model, row for row.

    unfit: rows that were left out, since the gateway did not serve them rightly to begin with.
    recorded_alarm: the number of the query, over all runs, at which a key first raised the alarm by the
    gateway's own record, 0 if that was before; None if none did, or it is not read.
    """

    attack: str
    within: str
    runs: list[RunRecord]
    bare: list[RunRecord] | None
    unfit: int = 0
    during: Harm | None = None
    recorded_alarm: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """After so many rows sent, and seconds waited: fidelity is the agreement of the stolen model with the
    bare one, 0 to 1.
    """

    rows: int
    answered: int
    fidelity: float
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Extraction:
    """One theft. tier: of the answers, as seen; keys: over how many keys the queries were spread.

    waited_s: because replies asked to; pace: rows answered a second since the first that was told to wait,
    None if none was. recorded_alarm: as of `Evasion`.
    """

    queries_from: str
    keys: int
    tier: str
    curve: list[Checkpoint]
    bare: list[Checkpoint]
    outcomes: dict[str, int]
    first_alarm: int | None
    ended: Ended
    seconds: float
    waited_s: float
    pace: float | None
    during: Harm | None
    recorded_alarm: int | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """One test for training rows. tpr, bare_tpr: at a false-positive rate of at most 0.1 %.

    tier: of the answers, as seen; auc: 0.5 for a guess. members, others: rows that were tested; others also
    set the threshold. recorded_alarm: as of `Evasion`.
    """

    tier: str
    score: str
    members: int
    others: int
    queries: int
    tpr: float | None
    auc: float | None
    bare_tpr: float | None
    bare_auc: float | None
    first_alarm: int | None
    ended: Ended
    during: Harm | None
    recorded_alarm: int | None = None


Skipped: TypeAlias = dict[str, str]
"""What was not carried out, and why."""


@dataclass(slots=True)
class Results:
    """A whole campaign; grows while it runs, so that an interrupted one can be written.

    reads_alarms: whether the gateway's own record of alarms is read.
    """

    schema: int
    target: str
    model: str
    made_s: float
    seed: int
    runs: int
    queries: int
    minutes: float
    unit: str
    rows_a_request: int
    keys: int
    obeys_retry_after: bool
    lattice: bool
    samples: str
    bare_model: str | None
    reads_alarms: bool = False
    before: Harm | None = None
    evasions: list[Evasion] = field(default_factory=list)
    extractions: list[Extraction] = field(default_factory=list)
    memberships: list[Membership] = field(default_factory=list)
    skipped: Skipped = field(default_factory=dict)
    ended: str = "done"
    seconds: float = 0.0
