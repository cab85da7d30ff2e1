"""The protocols of a kind of guard or check.

A kind is one file: its policy model (a pydantic model whose fields are those of `gateway.yaml`) with the
members below. There are four protocols, because there are four ways to set a cut:

* `BudgetKind`: what a row costs its caller (a rate, bits). The policy itself says where the score is cut, and
  rows are charged before they wait for anything. Calibration fits nothing but the prices of `kind: budget`.
* `CertifiedGuardKind`: calibration fits the guard on held-out rows and certifies one cut over all guards
  of this form together. `fit` and `load` give a `FittedGuard`, which holds the state.
* `HistoryKind`: judges rows by earlier ones. The policy cuts the evidence; calibration keeps what a start
  needs to know what is alike, and certifies nothing.
* `CheckKind`: judges one rung's answer; calibration certifies its cut from labels.

A guard of the second form does not depend on the cut, the budget or the other guards: it returns a risk in
nats (larger = more suspicious), calibration runs the very guard that serves and joins the risks by their
maximum, and `deployment/compile.py` makes the stage. So no kind can be left out: every guard with a certified
cut has entered the joint risk.

The certificate binds every field of a kind, so that it holds for that policy alone. A kind names in
`unbound` the few fields whose change takes no new calibration, such as `budget_s`: they are conditions of the
promises (`policy/conditions.py`).

docs/adding-a-guard.md builds the smallest complete kind step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from fallbacks.predictor import ModelTensor
from gateway.core.batch import Answered, Batch
from gateway.core.budget import Budget
from gateway.core.decision import Reason, Tensors, Verdict
from gateway.core.rows import F8
from gateway.core.stage import Guard
from gateway.policy.kinds.rows import FittingFolds
from gateway.policy.locate import Loc
from gateway.policy.observation import ObservePolicy
from guards.arrays import Arrays
from guards.fitted_prices import FittedPrices
from guards.gcra import Accounts
from guards.rows import Signals
from guards.spending import Spending

FieldProblem: TypeAlias = tuple[Loc, str]
"""A field of a kind's policy, and a message."""
ReadColumns: TypeAlias = Callable[[Batch], Any]
"""Awaitable float64[n, columns]: the measures of a batch for all guards."""


class LedgerUse(NamedTuple):
    """Which accounts a budget asks for: those of a guard at a ledger, in the unit of its kind.

    on_error: what holds while the ledger does not answer: `allow` goes on with this replica's share.
    """

    guard: str
    kind: str
    ledger: str
    on_error: Literal["allow", "refuse"]

    @classmethod
    def of(cls, kind: BudgetKind, ledger: str) -> LedgerUse:
        """Of a guard in the policy. All but `allow` is the stage's to decide, where nothing is charged."""
        return cls(kind.name, kind.kind, ledger, "allow" if kind.on_error == "allow" else "refuse")


class SharedAccounts(NamedTuple):
    """Accounts of one budget, and what its principals have spent; both outlive a reload."""

    accounts: Accounts
    spending: Spending

    @classmethod
    def over(cls, accounts: Accounts) -> SharedAccounts:
        """Accounts of which nothing has been spent yet."""
        return cls(accounts, Spending())


@dataclass(frozen=True, slots=True)
class Services:
    """State that outlives a pipeline, and what is known of principals.

    clock: seconds; rate_of: a key's own rows a second; tier_bits: what an answer may tell a principal, as its
    disclosure tier shows it; is_trusted: whether it is left out of what all others share; shared: the
    accounts of a budget that replicas share; anonymous_bits: of the tier `anonymous`; novelty_guards: whose
    scores say how new a row is; fitted: prices by the name of the guard.
    """

    clock: Callable[[], float]
    rate_of: Callable[[str], float | None]
    tier_bits: Callable[[str], float]
    is_trusted: Callable[[str], bool]
    shared: Callable[[LedgerUse], SharedAccounts]
    anonymous_bits: float
    novelty_guards: tuple[str, ...]
    fitted: Mapping[str, FittedPrices]


@dataclass(frozen=True, slots=True)
class GuardColumns:
    """The columns of one guard. read: returns every guard's columns; first: the index of its own first.

    model: the rung whose answer guards read; picture: the input that they read as a picture, if there is one.
    """

    read: ReadColumns
    first: int
    model: str
    picture: str | None


class InputOnlyForm(Protocol):
    """How a guard judges rows for which the model gave no answer; calibrated like the full form."""

    def score(self, s: Signals, /) -> F8:
        """float64[n] nats from the input alone: `s.x` and `s.t`."""
        ...


class FittedGuard(Protocol):
    """A guard with its fitted state."""

    @property
    def input_only(self) -> InputOnlyForm | None:
        """The form for when the model is gone; None: then `without_answer` is assumed."""
        ...

    def pack(self) -> Arrays:
        """The state as arrays, every key beginning with the guard's name."""
        ...

    def input_columns(self, s: Signals, /) -> Sequence[F8]:
        """float64[n] each: measures that do not need the model's answer, from `s.x` and `s.t`."""
        ...

    def answer_columns(
        self, s: Signals, answer: Mapping[str, Any], input_scores: Sequence[Any], /
    ) -> Sequence[F8]:
        """float64[n] each: measures that need the model's answer.

        Args:    s: features and logits included; answer: the outputs by name; input_scores: the result of
                 `input_columns` for these rows.
        """
        ...

    def guard(self, columns: GuardColumns, /) -> Guard[Batch]:
        """The guard that serves, over its own columns."""
        ...


class _Kind(Protocol):
    """The members of every kind.

    unbound: the fields that the certificate does not bind; of a certified guard or a check a change withdraws
    the promises, except of a `budget_s` that becomes longer. example: one entry of a policy in YAML,
    complete and typical, for the policy reference and for the contract suite that runs over every kind.
    """

    unbound: ClassVar[frozenset[str]]
    example: ClassVar[str]

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def budget_s(self) -> float: ...
    @property
    def on_error(self) -> str: ...
    @property
    def enforce(self) -> bool: ...


class _GuardKind(_Kind, Protocol):
    reason: ClassVar[Reason]
    on_canary: ClassVar[bool]
    """Whether the row of a health check runs it: not if it charges a budget or asks a model once more."""

    @property
    def observe(self) -> ObservePolicy | None:
        """Until when the guard is only observed; None: it is not."""
        ...

    def contradictions(self) -> Iterable[FieldProblem]:
        """Fields that contradict each other."""
        ...

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor], /
    ) -> Iterable[FieldProblem]:
        """Why the guard cannot read the inputs, or the outputs of the first rung."""
        ...

    def reviewer_sentence(self, form: str, /) -> str:
        """Why a row came to a reviewer, for the console. form: `full` or `input_only`."""
        ...


class BudgetKind(_GuardKind, Protocol):
    """A budget of each caller, which the policy itself cuts."""

    certified: ClassVar[Literal[False]]

    @property
    def ledger(self) -> str | None:
        """Where replicas share it (`ledger_place.py`); None: each replica has its own."""
        ...

    @property
    def refuse_from(self) -> float:
        """The score from which a row is refused."""
        ...

    @property
    def retry_scale_s(self) -> float | None:
        """Seconds to wait for each unit of score over the cut, for a refused row; None: unknown."""
        ...

    def promise(self) -> str:
        """One sentence for the status page."""
        ...

    def meter(self, services: Services, /) -> Budget:
        """What charges its rows. A failed reload drops it: it changes nothing that another one uses."""
        ...


class CertifiedGuardKind(_GuardKind, Protocol):
    """A guard that calibration fits, and whose cut it certifies."""

    certified: ClassVar[Literal[True]]

    @property
    def share(self) -> float: ...

    @property
    def verdict(self) -> Verdict:
        """The verdict from the cut on."""
        ...

    @property
    def without_answer(self) -> Verdict:
        """The verdict on rows that the model did not answer, where there is no input-only form."""
        ...

    def fit(self, folds: FittingFolds, /) -> FittedGuard:
        """Fits the guard. Raises ValueError naming the problem of the rows or of the model's outputs."""
        ...

    def load(self, packed: Arrays, /) -> FittedGuard:
        """Reads what `FittedGuard.pack` returned. Raises ValueError naming a key that is missing or wrong."""
        ...


class FittedHistory(Protocol):
    """What calibration kept for a guard that judges by earlier rows."""

    def pack(self) -> Arrays:
        """The state as arrays, every key beginning with the guard's name."""
        ...


class HistoryKind(_GuardKind, Protocol):
    """A guard that judges rows by earlier ones, which the policy itself cuts."""

    certified: ClassVar[Literal[False]]

    @property
    def verdicts(self) -> Mapping[Verdict, float]:
        """The score from which a row gets each verdict."""
        ...

    def promise(self) -> str:
        """One sentence for the status page."""
        ...

    def fit(self, folds: FittingFolds, /) -> FittedHistory:
        """As `CertifiedGuardKind`."""
        ...

    def load(self, packed: Arrays, /) -> FittedHistory:
        """As `CertifiedGuardKind`."""
        ...


class CheckKind(_Kind, Protocol):
    """A check of one rung's answer, whose cut is certified so that at most `selective_error` is wrong.

    objection: completes the sentence for a reviewer: the model “name” is `not sure enough`. task: the
    policy's `task` whose answers it judges. most: the largest score that it gives; the least is 0.
    """

    reason: ClassVar[Reason]
    objection: ClassVar[str]
    task: ClassVar[str]
    most: ClassVar[float]

    @property
    def selective_error(self) -> float: ...

    def unreadable(self, outputs: Sequence[ModelTensor], /) -> Iterable[FieldProblem]:
        """Why the check cannot read the outputs of a rung."""
        ...

    def suspicion(self, answer: Tensors, /) -> F8:
        """float64[n], larger = less sure: the scores that the check would give when serving."""
        ...

    def guard(self) -> Guard[Answered]: ...
