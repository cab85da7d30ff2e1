"""The table of cells: it covers every stage, each cell once, and what it allows is safe."""

from __future__ import annotations

from collections import Counter

from bench.faults.cell import ANY, LIMITED, SAFE, WITHHELD
from bench.faults.cells import CELLS
from bench.faults.surroundings import CONFIGS
from gateway.deployment.deployment import Deployment


def test_at_least_150_cells_each_under_a_name_of_its_own() -> None:
    assert len(CELLS) >= 150
    assert max(Counter(cell.name for cell in CELLS).values()) == 1


def test_every_guard_check_and_rung_of_the_deployment_is_a_stage() -> None:
    policy = Deployment.read(CONFIGS / "fashion").policy
    checks = [check.name for rung in policy.rungs for check in rung.checks]
    stages = {cell.stage for cell in CELLS}
    assert stages >= {*(one.name for one in policy.guards), *(one.name for one in policy.rungs), *checks}
    assert stages >= {"review", "audit", "telemetry", "exporter", "files", "process", "upstream"}


def test_no_outlier_may_be_answered_but_by_a_guard_that_hides_it() -> None:
    blind = [cell.name for cell in CELLS if not cell.outliers <= WITHHELD | LIMITED - ANY]
    assert blind == ["ood / stuck low"]


def test_a_good_row_may_be_served_only_where_the_policy_lets_the_failed_part_pass() -> None:
    strict = {cell.stage for cell in CELLS if cell.good <= SAFE}
    assert {"ood", "noise", "perturbation", "confidence", "primary", "small"} <= strict
