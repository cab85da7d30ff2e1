"""No file, database or other server is called on the event loop while requests of every kind are answered."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.deployments import FULL_RATE, be_patient, edit, key_for
from tests.support.served import Served, clean_rows, copy_of, json_of, outlier_rows, serving

LAUNCHER = Path(__file__).parent / "support" / "loop_calls.py"
CONTROL = "os.stat gateway/local.py:_serve "
"""How the call begins that the recorder itself makes."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calls") / "report"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, report: Path) -> Iterator[Served]:
    folder = copy_of("letters", tmp_path_factory.mktemp("served"))
    be_patient(folder)
    edit(folder, FULL_RATE)
    key_for(folder, "ada")
    launcher = (sys.executable, str(LAUNCHER), str(report))
    with serving(folder, "--local", launcher=launcher) as running:
        yield running


def use_the_data_plane(served: Served) -> None:
    key = key_for(served.folder, "eve", "trusted", None, "infer", "explain")
    headers = {"authorization": f"Bearer {key}"}
    for _ in range(50):
        if served.ask(clean_rows(1), **headers).status_code == 200:
            break
        time.sleep(0.1)
    large = b" " * 40_000 + json.dumps(json_of(clean_rows(1))).encode()
    assert (
        served.data.post(f"/v2/models/{served.model}/infer", content=large, headers=headers).status_code
        == 200
    )
    assert served.ask(clean_rows(1), authorization="Bearer wrong").status_code == 401
    deferred = served.ask(outlier_rows(1), **headers)
    assert deferred.headers["x-failsafe-outcome"] == "deferred"
    found = served.data.get(deferred.json()["review_url"], headers=headers)
    assert found.status_code in (200, 202)
    decision = deferred.headers["x-failsafe-decision-id"]
    assert served.data.get(f"/decisions/{decision}", headers=headers).status_code == 200
    served.ask(outlier_rows(1), **headers, prefer="wait=1")
    served.data.post(f"/v2/models/{served.model}/infer", content=b"{", headers=headers)
    for path in (
        "/v2",
        "/v2/health/ready",
        "/v2/models/letters",
        "/v2/models/stats",
        "/openapi.json",
        "/none",
    ):
        served.data.get(path, headers=headers)
    served.data.post("/v2/repository/index", headers=headers)


def use_the_administration(served: Served) -> None:
    for path in ("/status", "/metrics", "/policy", "/review", "/sessions", "/decisions/none", "/login"):
        for accept in ("application/json", "text/html"):
            served.admin.get(path, headers={"accept": accept})
    (case, *_) = served.admin.get("/review").json()["cases"]
    claimed = served.admin.post("/review/claim", json={}).json()
    served.admin.get(f"/review/{case['id']}", headers={"accept": "text/html"})
    body = {"fence": claimed["fence"], "unsure": True}
    assert served.admin.post(f"/review/{claimed['id']}/answer", json=body).status_code == 200
    assert served.admin.post("/rungs/primary/isolate").status_code == 200
    assert served.admin.post("/rungs/primary/restore").status_code == 200
    assert served.admin.post("/policy/reload").status_code == 200
    token = str(served.admin.headers["authorization"]).removeprefix("Bearer ")
    with httpx.Client(base_url=served.admin.base_url, headers={"accept": "text/html"}) as browser:
        assert browser.post("/login", data={"token": token}).status_code == 303
        signed_in = browser.post("/login", data={"token": token}).headers["location"]
        assert browser.get(signed_in).status_code == 200
        root = re.match(r"/session/[^/]+", signed_in)
        assert root is not None
        for path in ("/review", "/sessions", "/pages/style.css"):
            assert browser.get(root[0] + path).status_code == 200


def test_no_file_database_or_server_is_called_on_the_event_loop(served: Served, report: Path) -> None:
    use_the_data_plane(served)
    use_the_administration(served)
    time.sleep(2.5)  # for what is done now and then
    control, *calls = report.read_text().splitlines()
    assert control.startswith(CONTROL)
    assert calls == []
    assert served.data.post("/v2/models/letters/infer", json=json_of(clean_rows(1))).status_code == 200
