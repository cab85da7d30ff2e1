"""Policies with a planted hole each, and good ones: edits of the deployments under `configs/`.

An edit is text of the policy and what takes its place; `cuts` are what a certificate would say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

Edits = tuple[tuple[str, str], ...]
NO_REVIEW = (
    'review: {store: "sqlite:///var/review.db", capacity: 10000, expire_after_s: 86400, on_expire: refuse,'
    " budget_s: 0.2}\n",
    "",
)
CUTS, FEATURES = "cuts: {defer: certified}\n    without_features: input_only", "without_features: input_only"
OOD_FAILS = ("budget_s: 0.05\n    on_error: defer", "budget_s: 0.05\n    on_error: {}")
NOISE_FAILS = ("budget_s: 0.02\n    on_error: defer", "budget_s: 0.02\n    on_error: {}")
SQUEEZE_FAILS = ("budget_s: 0.05\n    on_error: degrade", "budget_s: 0.05\n    on_error: {}")
RATE_FAILS = ("budget_s: 0.002, on_error: allow", "budget_s: 0.002, on_error: {}")
CHECK = "{{name: {}, kind: confidence, selective_error: {}, budget_s: 0.01, on_error: degrade}}"
CHECKS = {
    "letters": (CHECK.format("confidence", 0.02), CHECK.format("small_confidence", 0.04)),
    "fashion": (CHECK.format("confidence", 0.05), CHECK.format("small_confidence", 0.02)),
}
WIDTH = "budget_s: 0.02\n        on_error: degrade"
TREE = "{name: tree_width, kind: interval, selective_error: 0.1, budget_s: 0.02, on_error: degrade}"


def fails(edit: tuple[str, str], verdict: str) -> tuple[str, str]:
    """The edit of an `on_error` to a verdict."""
    return edit[0], edit[1].format(verdict)


def opened(check: str) -> tuple[str, str]:
    """A check that fails open."""
    return check, check.replace("on_error: degrade", "on_error: allow")


def waived(*names: str) -> tuple[str, str]:
    """Waivers for parts."""
    return "expose:", f"waivers: {{{', '.join(f'{name}: a demo' for name in names)}}}\nexpose:"


@dataclass(frozen=True)
class Hole:
    """A policy with a hole. found: the field of each problem, and words of it; cuts: by what they cut."""

    config: str
    edits: Edits
    found: Mapping[str, str]
    cuts: Mapping[str, float] = field(default_factory=dict)
    deadline_s: float | None = None


def cut(config: str, what: str, value: float, field: str, words: str) -> Hole:
    return Hole(config, (), {field: words}, {what: value})


OOD, SMALL, FIRST, SECOND = "guards[1]", "rungs[1]", "rungs[0].checks[0]", "rungs[1].checks[0]"
NEVER, ALWAYS = "never objects: no score reaches its cut", "stops every row: all scores reach its cut"
TO_SERVED = "-> served by primary (200)"
NO_PEOPLE = "no `review` with people to defer to"
L, F, D = "letters", "fashion", "diamonds"
NO_CHECK = {
    L: ("\n    checks:\n      - " + CHECKS[L][0], ""),
    F: ("\n    checks:\n      - " + CHECKS[F][0], ""),
}
DEFER = (FEATURES, "without_features: defer")
REFUSE = (CUTS, CUTS.replace("defer", "refuse"))

HOLES: dict[str, Hole] = {
    # a part that fails open without a waiver
    "ood fails open": Hole(
        L,
        (fails(OOD_FAILS, "allow"),),
        {f"{OOD}.on_error": "primary: ok -> ood: error (allow) -> confidence: ok -> served by primary (200)"},
    ),
    "ood of pictures fails open": Hole(
        F, (fails(OOD_FAILS, "allow"),), {f"{OOD}.on_error": "ood: error (allow)"}
    ),
    "ood of a regressor fails open": Hole(
        D, (fails(OOD_FAILS, "allow"),), {f"{OOD}.on_error": "ood: error (allow) -> width: ok"}
    ),
    "a guard that refuses fails open": Hole(
        L, (REFUSE, fails(OOD_FAILS, "allow")), {f"{OOD}.on_error": "fails open and has no waiver"}
    ),
    "the second guard fails open": Hole(
        F, (fails(NOISE_FAILS, "allow"),), {"guards[2].on_error": "noise: error (allow)"}
    ),
    "the squeeze guard fails open": Hole(
        F, (fails(SQUEEZE_FAILS, "allow"),), {"guards[3].on_error": "perturbation: error (allow)"}
    ),
    "two guards fail open": Hole(
        F,
        (fails(OOD_FAILS, "allow"), fails(SQUEEZE_FAILS, "allow")),
        {f"{OOD}.on_error": "`ood` fails open", "guards[3].on_error": "`perturbation` fails open"},
    ),
    "the primary's check fails open": Hole(
        L, (opened(CHECKS[L][0]),), {f"{FIRST}.on_error": f"confidence: error (allow) {TO_SERVED}"}
    ),
    "the fallback's check fails open": Hole(
        L,
        (opened(CHECKS[L][1]),),
        {f"{SECOND}.on_error": "small: ok -> small_confidence: error (allow) -> degraded by small (200)"},
    ),
    "both checks fail open": Hole(
        F,
        (opened(CHECKS[F][0]), opened(CHECKS[F][1])),
        {f"{FIRST}.on_error": "say degrade", f"{SECOND}.on_error": "say degrade"},
    ),
    "a check of intervals fails open": Hole(
        D, ((WIDTH, WIDTH.replace("degrade", "allow")),), {f"{FIRST}.on_error": "width: error (allow)"}
    ),
    "the fallback's check of intervals fails open": Hole(
        D, (opened(TREE),), {f"{SECOND}.on_error": "tree_width: error (allow) -> degraded by tree (200)"}
    ),
    "another part has the waiver": Hole(
        L, (fails(OOD_FAILS, "allow"), waived("rate")), {f"{OOD}.on_error": "waivers: {ood: ...}"}
    ),
    "one of two has the waiver": Hole(
        L,
        (fails(OOD_FAILS, "allow"), opened(CHECKS[L][1]), waived("ood")),
        {f"{SECOND}.on_error": "waivers: {small_confidence: ...}"},
    ),
    "a guard fails open where nothing checks": Hole(
        L, (fails(OOD_FAILS, "allow"), NO_CHECK[L]), {f"{OOD}.on_error": f"ood: error (allow) {TO_SERVED}"}
    ),
    # guards that defer to no people
    "no people to defer to": Hole(
        L,
        (NO_REVIEW,),
        {
            f"{OOD}.cuts": "ood: flagged (defer) -> refused as abstained (422)",
            f"{OOD}.on_error": "ood: error (defer) -> refused as unavailable (503)",
        },
    ),
    "no people for three guards": Hole(
        F,
        (NO_REVIEW,),
        {
            f"{OOD}.cuts": NO_PEOPLE,
            f"{OOD}.on_error": NO_PEOPLE,
            "guards[2].cuts": NO_PEOPLE,
            "guards[2].on_error": NO_PEOPLE,
            "guards[3].cuts": NO_PEOPLE,
        },
    ),
    "no people for a regressor": Hole(
        D, (NO_REVIEW,), {f"{OOD}.cuts": NO_PEOPLE, f"{OOD}.on_error": NO_PEOPLE}
    ),
    "no people for what fails": Hole(
        L, (NO_REVIEW, REFUSE), {f"{OOD}.on_error": "ood: error (defer) -> refused as unavailable (503)"}
    ),
    "no people for what is flagged": Hole(
        L, (NO_REVIEW, fails(OOD_FAILS, "refuse")), {f"{OOD}.cuts": "add `review`, or say refuse"}
    ),
    "no people while the primary is gone": Hole(
        L,
        (
            NO_REVIEW,
            (CUTS, "cuts: {refuse: certified}\n    without_features: defer"),
            fails(OOD_FAILS, "refuse"),
        ),
        {f"{OOD}.without_features": "primary: error -> ood: no_answer (defer) -> refused as unavailable"},
    ),
    "no people for a squeeze guard that fails": Hole(
        F,
        (
            NO_REVIEW,
            (CUTS, CUTS.replace("defer", "refuse")),
            fails(OOD_FAILS, "refuse"),
            ("[noise]\n    cuts: {defer: certified}", "[noise]\n    cuts: {refuse: certified}"),
            fails(NOISE_FAILS, "refuse"),
            ("squeeze\n    cuts: {defer: certified}", "squeeze\n    cuts: {refuse: certified}"),
            fails(SQUEEZE_FAILS, "defer"),
        ),
        {"guards[3].on_error": "perturbation: error (defer)"},
    ),
    "no people for a broken limit": Hole(
        L,
        (NO_REVIEW, REFUSE, fails(OOD_FAILS, "refuse"), fails(RATE_FAILS, "defer")),
        {"guards[0].on_error": "rate: error (defer)"},
    ),
    # cuts that no score reaches, or that every score reaches
    "a cut that is NaN": cut(L, "false_alarm", math.nan, OOD, f"`ood` {NEVER}"),
    "a cut that is infinite": cut(L, "false_alarm", math.inf, OOD, f"`ood` {NEVER}"),
    "a cut of minus infinity": cut(L, "false_alarm", -math.inf, OOD, f"`ood` {ALWAYS}"),
    "a cut of zero": cut(L, "false_alarm", 0.0, OOD, f"`ood` {ALWAYS}"),
    "a negative cut": cut(D, "false_alarm", -3.0, OOD, f"`ood` {ALWAYS}"),
    "a cut of NaN without the primary": cut(
        L, "without_features", math.nan, OOD, f"`ood` without the primary's answer {NEVER}"
    ),
    "an infinite cut without the primary": cut(
        D, "without_features", math.inf, OOD, f"`ood` without the primary's answer {NEVER}"
    ),
    "a cut below all without the primary": cut(
        L, "without_features", -1.0, OOD, f"`ood` without the primary's answer {ALWAYS}"
    ),
    "a primary's check that never objects": cut(L, "primary", 1.5, FIRST, f"`confidence` {NEVER}"),
    "a primary's check of NaN": cut(F, "primary", math.nan, FIRST, f"`confidence` {NEVER}"),
    "a primary's check that always objects": cut(L, "primary", 0.0, FIRST, f"`confidence` {ALWAYS}"),
    "a fallback's check that never objects": cut(F, "small", math.inf, SECOND, f"`small_confidence` {NEVER}"),
    "a fallback's check that always objects": cut(L, "small", -0.5, SECOND, f"`small_confidence` {ALWAYS}"),
    "intervals of any width": cut(D, "primary", math.inf, FIRST, f"`width` {NEVER}"),
    "no interval is narrow enough": cut(D, "tree", 0.0, SECOND, f"`tree_width` {ALWAYS}"),
    "three guards that never object": Hole(
        F,
        (),
        dict.fromkeys(["guards[1]", "guards[2]", "guards[3]"], NEVER),
        {"false_alarm": math.nan},
    ),
    # rungs that nothing leads to
    "a fallback that no path asks": Hole(
        L,
        (DEFER, NO_CHECK[L]),
        {SMALL: "`small` never answers: rate: ok -> primary: error -> ood: no_answer (defer) -> review"},
    ),
    "a fallback of pictures that no path asks": Hole(
        F, (DEFER, NO_CHECK[F], fails(SQUEEZE_FAILS, "defer")), {SMALL: "`small` never answers"}
    ),
    "a fallback behind an observed check": Hole(
        L,
        (DEFER, (CHECKS[L][0], CHECKS[L][0].replace("}", ", enforce: false}"))),
        {SMALL: "take it out, or let a guard say degrade"},
    ),
    "a fallback behind a guard that refuses": Hole(
        L,
        (
            (CUTS, "cuts: {refuse: certified}\n    without_features: defer"),
            fails(OOD_FAILS, "refuse"),
            NO_CHECK[L],
        ),
        {SMALL: "`small` never answers"},
    ),
    # budgets that outlast the deadline
    "a deadline below one path": Hole(
        L, (), {"deadline_s": "0.4 s is less than the 0.420 s"}, deadline_s=0.4
    ),
    "a deadline below one path of pictures": Hole(
        F, (), {"deadline_s": "that the budgets of one path can take: rate: ok -> primary:"}, deadline_s=0.3
    ),
    "a deadline below the primary's budget": Hole(
        D, (), {"deadline_s": "make it longer, or a budget shorter"}, deadline_s=0.05
    ),
    # more than one
    "everything at once": Hole(
        L,
        (NO_REVIEW, fails(OOD_FAILS, "allow"), opened(CHECKS[L][1])),
        {
            "deadline_s": "is less than",
            f"{OOD}.on_error": "`ood` fails open",
            f"{SECOND}.on_error": "`small_confidence` fails open",
            f"{OOD}.cuts": NO_PEOPLE,
        },
        deadline_s=0.1,
    ),
}

GOOD: dict[str, tuple[str, Edits]] = {
    "letters as it is": (L, ()),
    "fashion as it is": (F, ()),
    "diamonds as it is": (D, ()),
    "a guard that refuses": (L, (REFUSE,)),
    "a guard that degrades": (L, ((CUTS, CUTS.replace("defer", "degrade")),)),
    "a guard that fails closed": (L, (fails(OOD_FAILS, "refuse"),)),
    "a guard that fails to the fallback": (L, (fails(OOD_FAILS, "degrade"),)),
    "a guard that fails open by a waiver": (L, (fails(OOD_FAILS, "allow"), waived("ood"))),
    "a check that fails open by a waiver": (L, (opened(CHECKS[L][0]), waived("confidence"))),
    "two waivers": (
        F,
        (fails(SQUEEZE_FAILS, "allow"), opened(CHECKS[F][1]), waived("perturbation", "small_confidence")),
    ),
    "a limit with a waiver": (L, (waived("rate"),)),
    "a limit that fails closed": (L, (fails(RATE_FAILS, "refuse"),)),
    "an observed guard that fails open": (L, (fails(OOD_FAILS, "allow\n    enforce: false"),)),
    "a policy that only observes": (
        L,
        (fails(OOD_FAILS, "allow"), ('version: "1"', 'version: "1"\nmode: observe')),
    ),
    "no review, and no guard that defers": (L, (NO_REVIEW, REFUSE, fails(OOD_FAILS, "refuse"))),
    "no review, and a guard that degrades": (
        L,
        (NO_REVIEW, (CUTS, CUTS.replace("defer", "degrade")), fails(OOD_FAILS, "degrade")),
    ),
    "no form without the primary": (L, (DEFER,)),
    "a primary without a check": (L, (NO_CHECK[L],)),
    "a squeeze guard that defers where it fails": (F, (fails(SQUEEZE_FAILS, "defer"),)),
    "a longer deadline": (D, (("deadline_s: 0.5", "deadline_s: 5"),)),
}
