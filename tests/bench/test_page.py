"""The page of a load test: whole, alone, safe, and with every number that it draws."""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.client import Origin
from bench.curve import LoadCurve, LoadStep
from bench.load import LoadPlan
from bench.measurements import LatencySummary, Measurements
from bench.page import Axis, render_page
from bench.results import LoadFigures, LoadResults, RunDescription

PLAN = LoadPlan(Origin("h", 1, tls=False), [b"x" * 321], seconds=2.0)
SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


def _figures(seed: int = 0, errors: int = 0) -> LoadFigures:
    latencies = np.random.default_rng(seed).lognormal(-5, 0.5, 4000)
    measurements = Measurements(
        latencies_s={("served", "ok"): array("d", latencies), ("refused", "abstained"): array("d", [0.25])}
    )
    for _ in range(errors):
        measurements.fail("<script>alert(1)</script>")
    return LoadFigures.of(PLAN, measurements, 2.0)


def _about() -> RunDescription:
    machine = {"cpu": "a <fast> one", "cores": "2", "commit": "abc123"}
    return RunDescription(
        "letters", "2026-01-02T03:04:05+00:00", "gateway bench URL", machine, 1, 321, 0.1, 2.0, 1.0
    )


def _curve(saturation: float | None) -> LoadCurve:
    spread = LatencySummary(9, 2.0, 1.5, 3.0, 7.0, 8.0, 9.0)
    steps = [
        LoadStep(share, 1000 * share, 990 * share, spread, 0.1, {"served": 9}, 0, {}, saturation is not None)
        for share in (0.1, 0.5, 1.1)
    ]
    return LoadCurve(1000.0, 100.0, steps, saturation)


class _Tags(HTMLParser):
    """Counts what is open, and keeps what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [tag for name, _ in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.loaded += [tag] if tag in ("script", "link", "iframe", "img", "object") else []
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "results",
    [
        LoadResults(_about(), _figures()),
        LoadResults(_about(), _figures(errors=3), _figures(1), _figures(2)),
        LoadResults(_about(), _figures(), curve=_curve(500.0)),
        LoadResults(_about(), _figures(), curve=_curve(None)),
        LoadResults(_about(), LoadFigures.of(PLAN, Measurements(), 2.0)),
    ],
    ids=["one load", "abusive and errors", "curve", "no saturation", "nothing came back"],
)
def test_every_page_is_well_formed_and_loads_nothing(results: LoadResults) -> None:
    text = render_page(results)
    tags = _Tags(text)
    assert not tags.open and not tags.loaded
    assert "url(" not in text and "@import" not in text
    for svg in SVG.findall(text):
        drawn = ElementTree.fromstring(svg)
        assert drawn.get("aria-hidden") or (
            drawn.get("role") == "img" and (drawn.get("aria-label") or drawn.find("title") is not None)
        )
        assert "nan" not in svg and "inf" not in svg


def test_what_came_from_elsewhere_is_escaped() -> None:
    text = render_page(LoadResults(_about(), _figures(errors=3)))
    assert "<script" not in text and "&lt;script&gt;" in text and "a &lt;fast&gt; one" in text


def test_the_numbers_are_in_tables_too() -> None:
    load = _figures()
    text = render_page(LoadResults(_about(), load, curve=_curve(500.0)))
    for point in load.percentiles:
        assert f"<td>{point.ms:.2f}</td>" in text
    for one in load.histogram:
        assert f"<td>{one.count:,}</td>" in text
    assert "saturation, 500/s" in text and "p99 limit, 100 ms" in text and "gateway bench URL" in text
    assert f"<td>{load.latency_ms.p99_9:.2f}</td>" in text and "abc123" in text


@pytest.mark.parametrize("axis", [Axis(0.5, 300.0, 310.0, 16.0, True), Axis(0.0, 4321.0, 64.0, 932.0, False)])
def test_an_axis_has_round_ticks_inside_and_keeps_the_order(axis: Axis) -> None:
    low, high = sorted((axis.begin, axis.end))
    places = [at for at, _ in axis.ticks()]
    assert 4 <= len(places) <= 12 and all(low <= at <= high for at in places)
    assert places == sorted(places, reverse=axis.begin > axis.end)
    assert axis.at(axis.low) == axis.begin and math.isclose(axis.at(axis.high), axis.end)
    assert axis.at(axis.high * 10) == axis.end
    for at, label in axis.ticks():
        assert axis.at(float(label)) == pytest.approx(at)


def test_a_reader_is_warned_of_a_generator_that_was_late_in_any_step() -> None:
    curve = _curve(500.0)
    late = replace(curve, steps=[*curve.steps, replace(curve.steps[0], late_p99_ms=7.0)])
    assert "was late, by 7.0 ms" in render_page(LoadResults(_about(), _figures(), curve=late))
    assert "was late" not in render_page(LoadResults(_about(), _figures(), curve=curve))
