"""The report that a calibration writes, by the task of the policy."""

from __future__ import annotations

from pathlib import Path

from gateway.calibration.calibrate import REPORT_FILE, calibrate
from gateway.deployment.deployment import Deployment
from tests.calibration.page.pages import check
from tests.support.regressors import interval, policy_of, regressor, written

OOD = {
    "name": "ood", "kind": "ood", "detectors": ["raw"], "cuts": {"defer": "certified"}, "budget_s": 5.0,
    "on_error": "defer",
}  # fmt: skip


def test_an_opaque_model_is_certified_on_rows_and_its_report_has_no_labels(tmp_path: Path) -> None:
    policy = policy_of([None], task="opaque", guards=[OOD], answered_error=None)
    data = written(tmp_path, policy, [regressor()], n=900)
    certificate = calibrate(Deployment.read(tmp_path), data)
    assert certificate.population == "rows exchangeable with the 900 rows of held.npz"
    text = check((tmp_path / REPORT_FILE).read_text()).text
    assert certificate.population in text
    assert "label" not in text and "Rungs" not in text


def test_a_regressors_report_shows_the_limit_on_its_relative_width(tmp_path: Path) -> None:
    policy = policy_of([interval(max_width={"relative": 5.0}), None], guards=[OOD])
    data = written(tmp_path, policy, [regressor(), regressor(2, quantiles=True)], n=2000)
    certificate = calibrate(Deployment.read(tmp_path), data)
    text = check((tmp_path / REPORT_FILE).read_text()).text
    assert f"certified width limit {certificate.selective['rung0'].cut:.4g} times the number" in text
    assert "Slices by the number answered" in text and "Farthest outside" in text
    assert "has its true value outside the interval" in text
