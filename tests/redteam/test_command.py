"""`gateway redteam` against a gateway in a process of its own, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.deployments import be_patient, edit, key_for
from tests.support.served import (
    CONFIGS,
    IN_BACKGROUND,
    TOKEN,
    Served,
    copy_of,
    free_port,
    serving,
    wait_until,
)

WITHIN_S, VARIABLE = 120, "GATEWAY_ADMIN_TOKEN"
TIERS = (
    "{anonymous: {rounded: 2}, trusted: full}",
    "{anonymous: {rounded: 2}, trusted: full, label: label, some: {top: 3}}",
)


def command(url: str, *words: str, samples: Path = CONFIGS / "letters" / "samples.npz") -> list[str]:
    return [sys.executable, "-m", "gateway", "redteam", url, "--samples", str(samples), *words]


def redteam(
    *words: str, cwd: Path, samples: Path = CONFIGS / "letters" / "samples.npz", token: str = ""
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; no traceback may be printed.

    token: of the administration, in the environment.
    """
    env = {name: value for name, value in os.environ.items() if name != VARIABLE} | {VARIABLE: token}
    done = subprocess.run(command(*words, samples=samples), cwd=cwd, capture_output=True, text=True, env=env,
                          timeout=WITHIN_S, check=False)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def url_of(served: Served) -> str:
    return str(served.data.base_url).rstrip("/")


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = copy_of("letters", tmp_path_factory.mktemp("redteam"))
    be_patient(folder)
    edit(folder, TIERS)
    with serving(folder, "--local") as served:
        yield served


@pytest.fixture(scope="module")
def keys(letters: Served) -> list[str]:
    """Those of two attackers, then an honest caller's; in force a second later."""
    made = [key_for(letters.folder, name, "anonymous", 10_000) for name in ("eve", "mallory", "ada")]
    time.sleep(1.2)
    return made


def found(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "redteam.json").read_bytes())
    return read


def answered(served: Served) -> int:
    """How many rows the gateway has had so far."""
    (found,) = served.data.get(f"/v2/models/{served.model}/stats").json()["model_stats"]
    return int(found["inference_count"]) + int(found["inference_stats"]["fail"]["count"])


def test_a_campaign_writes_tables_page_and_json(letters: Served, keys: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# attackers\n{keys[0]}\n\n{keys[1]}\n")
    bare = str(CONFIGS / "letters" / "primary.onnx")
    code, out, err = redteam(
        url_of(letters), "--keys", "keys", "--honest-key", keys[2], "--bare", bare, "--runs", "2",
        "--queries", "120", "--minutes", "1.5", "--lattice", "--public",
        str(CONFIGS / "letters" / "letters.npz"), "--members",
        str(CONFIGS / "letters" / "samples.npz"), cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    for title in ("What an attacker pays", "The model stolen", "Training rows found"):
        assert title in out
    assert "extraction over 10 and 100 keys was not carried out: --keys has 2" in err
    assert (tmp_path / "redteam.html").read_text().startswith("<!doctype html>")
    held = found(tmp_path)
    assert held["ended"] == "done" and held["keys"] == 2 and held["before"]["rows"] == 100
    by_name = {one["attack"]: one for one in held["evasions"]}
    assert set(by_name) == {"hopskipjump", "boundary", "simba", "square", "adaptive"}
    for one in by_name.values():
        assert len(one["runs"]) == len(one["bare"]) == 2
        assert [run["row"] for run in one["runs"]] == [run["row"] for run in one["bare"]]
        assert all(0 < run["queries"] <= 120 for run in one["runs"] + one["bare"])
        assert all(set(run["outcomes"]) == {"served"} for run in one["bare"])
    assert by_name["square"]["figures"]["bare_success"]["successes"] >= 1
    assert any(run["first_alarm"] for one in held["evasions"] for run in one["runs"])
    assert {(one["queries_from"], one["keys"]) for one in held["extractions"]} == {
        ("in-distribution", 1), ("public", 1), ("active", 1),
    }  # fmt: skip
    assert {one["tier"] for one in held["extractions"]} <= {"rounded: 2", "label"}  # of a suspect by now
    assert all(one["bare"][-1]["fidelity"] > 0.3 for one in held["extractions"])
    assert [one["score"] for one in held["memberships"]] == ["quantile", "label only"]
    assert not held["reads_alarms"] and "not read" in out


def test_the_record_of_alarms_says_at_which_query_a_key_became_a_suspect(
    letters: Served, tmp_path: Path
) -> None:
    """Its replayed answers look served."""
    fresh = [key_for(letters.folder, name, "anonymous", 10_000) for name in ("trudy", "oscar")]
    time.sleep(1.2)
    words = ("--attack", "hopskipjump", "--runs", "1", "--queries", "300", "--lattice", "--admin",
             str(letters.admin.base_url))  # fmt: skip
    alarms = []
    for key in (fresh[0], fresh[1], fresh[1]):
        code, out, err = redteam(url_of(letters), *words, "--key", key, cwd=tmp_path, token=TOKEN)
        assert code == 0, err
        held = found(tmp_path)
        (attack,) = held["evasions"]
        (run,) = attack["runs"]
        assert held["reads_alarms"] and TOKEN not in (tmp_path / "redteam.json").read_text() + out + err
        alarms.append((attack["recorded_alarm"], run["queries"]))
    for at, queries in alarms[:2]:
        assert 3 <= at <= queries
    assert alarms[2][0] == 0, "the key was a suspect before"
    assert "before" in out


def test_each_tier_has_a_line_for_each_score(letters: Served, tmp_path: Path) -> None:
    names = {"label": "label", "anonymous": "rounded: 2", "some": "top: 3", "trusted": "full"}
    tiers = {tier: key_for(letters.folder, f"audit-{tier}", tier, 10_000) for tier in names}
    time.sleep(1.2)
    asked = [word for key in tiers.values() for word in ("--audit-key", key)]
    code, out, err = redteam(
        url_of(letters), *asked, "--attack", "membership", "--queries", "400", "--members",
        str(CONFIGS / "letters" / "samples.npz"), "--bare", str(CONFIGS / "letters" / "primary.onnx"),
        cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    lines = found(tmp_path)["memberships"]
    assert [(one["tier"], one["score"]) for one in lines] == [
        (tier, score) for tier in names.values() for score in ("quantile", "label only")
    ]
    for one in lines:
        assert one["members"] == one["others"] == (200 if one["score"] == "quantile" else 11)
        assert one["bare_auc"] is not None and "Training rows found" in out


def test_the_same_seed_attacks_the_bare_model_in_the_same_way(
    letters: Served, keys: Sequence[str], tmp_path: Path
) -> None:
    words = ("--attack", "square", "--runs", "2", "--queries", "60", "--key", keys[0], "--bare",
             str(CONFIGS / "letters" / "primary.onnx"))  # fmt: skip
    told = []
    for _ in range(2):
        code, out, err = redteam(url_of(letters), *words, "--json", cwd=tmp_path)
        assert code == 0, err
        told.append(json.loads(out)["evasions"][0]["bare"])
    assert [run["queries"] for run in told[0]] == [run["queries"] for run in told[1]]


def test_several_rows_a_request_are_counted_one_by_one(
    letters: Served, keys: Sequence[str], tmp_path: Path
) -> None:
    words = ("--attack", "hopskipjump", "--runs", "1", "--queries", "90", "--key", keys[0], "--rows", "16")
    code, _, err = redteam(url_of(letters), *words, cwd=tmp_path)
    assert code == 0, err
    (run,) = found(tmp_path)["evasions"][0]["runs"]
    assert sum(run["outcomes"].values()) == run["queries"] <= 90


@pytest.mark.parametrize("start", [(), IN_BACKGROUND], ids=["foreground", "background"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_write_the_report_of_what_was_done(
    letters: Served, keys: Sequence[str], tmp_path: Path, start: Sequence[str], number: signal.Signals
) -> None:
    before = answered(letters)
    words = ("--key", keys[0], "--attack", "boundary", "--runs", "50", "--queries", "200", "--minutes", "2")
    process = subprocess.Popen([*start, *command(url_of(letters), *words)], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    wait_until(lambda: answered(letters) > before + 250, "250 queries")
    process.send_signal(number)
    _, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1 and "Traceback" not in err
    assert "interrupted; the report holds what was done until then" in err
    held = found(tmp_path)
    assert held["ended"] == "interrupted" and 0 < len(held["evasions"][0]["runs"]) < 50
    assert held["evasions"][0]["runs"][-1]["ended"] == "interrupted"


def test_a_gateway_that_goes_away_leaves_a_report(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with serving(folder, "--local") as served:
        process = subprocess.Popen(
            command(url_of(served), "--attack", "boundary", "--runs", "50", "--queries", "200"),
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_until(lambda: answered(served) > 250, "250 queries")
    _, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1 and "Traceback" not in err
    assert "is the gateway running there?" in err or "answers 503" in err
    assert found(tmp_path)["ended"].startswith("failed")


def test_a_host_that_is_not_this_machine_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    code, out, err = redteam("http://models.example.org", cwd=tmp_path)
    assert (code, out) == (2, "") and "confirm it in writing with --i-own-this models.example.org" in err
    assert not list(tmp_path.iterdir())


def test_nothing_at_the_url_is_said(tmp_path: Path) -> None:
    code, _, err = redteam(f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert code == 2 and "cannot be reached" in err and "is the gateway running there?" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--key", "nobodys-key"), "--key: .* answers 401: .*make keys with `gateway key DIR NAME`"),
        (("--keys", "nowhere"), "nowhere: --keys: cannot be read: No such file"),
        (("--honest-key", "a", "--key", "a"), "--honest-key: is also the attacker's"),
        (("--model", "mars"), "--model: .*/v2/models/mars is not served there"),
        (("--attack", "simbaa"), "--attack: 'simbaa' is not an attack: .*did you mean 'simba'"),
        (("--bare", "nowhere.onnx"), "nowhere.onnx: --bare: cannot be read"),
        (
            ("--samples", "nowhere.npz"),
            "nowhere.npz: --samples: cannot be read: No such file .*held-out rows",
        ),
        (
            ("--samples", str(CONFIGS / "fashion" / "samples.npz")),
            "--samples: has no array 'attributes', but image",
        ),
        (
            ("--samples", "narrow.npz"),
            r"--samples: attributes has rows of shape \[3\]; the model takes \[16\]",
        ),
        (("--samples", "few.npz"), "--samples: has 2 rows; 20 are the least"),
        (("--report", "nowhere/r.html"), "--report: there is no such folder"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    letters: Served, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    np.savez(tmp_path / "narrow.npz", attributes=np.zeros((30, 3), np.float32))
    np.savez(tmp_path / "few.npz", attributes=np.zeros((2, 16), np.float32))
    code, out, err = redteam(url_of(letters), *words, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(says, err), err


@pytest.mark.parametrize(
    ("admin", "token", "says"),
    [
        ("", "", "--admin-token: is needed with --admin: .*`gateway admin add NAME --role viewer`"),
        ("", "a token that is not one", "--admin-token: .* answers 401; give a viewer's token"),
        ("http://127.0.0.1:1", TOKEN, "--admin: .* cannot be reached"),
        ("http://models.example.org", TOKEN, "--admin: .*confirm it in writing"),
    ],
)
def test_a_record_of_alarms_that_cannot_be_read_is_said_before_the_attacks(
    letters: Served, tmp_path: Path, admin: str, token: str, says: str
) -> None:
    where = admin or str(letters.admin.base_url)
    code, out, err = redteam(url_of(letters), "--admin", where, cwd=tmp_path, token=token)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert re.search(says, err), err
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with serving(copy_of("diamonds", tmp_path), "--local") as served:
        code, _, err = redteam(url_of(served), cwd=tmp_path)
    assert code == 2 and "only inputs of floats are attacked" in err
