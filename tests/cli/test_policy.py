"""`gateway policy`: what was in force, what differs, and changes that are checked before they are made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.options import app
from gateway.deployment.deployment import VAR
from tests.policy.test_observation import observing
from tests.serving.test_versions import keep, put_version, tag_in
from tests.support.deployments import edit, letters, rebound
from tests.support.served import Served, serving


def gateway(*arguments: str | Path) -> Result:
    """The command in this process."""
    import gateway.cli.commands  # noqa: F401 (adds the commands)

    return CliRunner().invoke(app, [str(one) for one in arguments])


def policy(*arguments: str | Path) -> Result:
    done = gateway("policy", *arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def other_file(folder: Path, to: Path, *changes: tuple[str, str]) -> Path:
    """A policy file with some text replaced."""
    copy = to / "edited"
    copy.mkdir()
    shutil.copy(folder / "gateway.yaml", copy)
    edit(copy, *changes)
    return copy / "gateway.yaml"


VERSION_2 = ('version: "1"', 'version: "2"')


def test_the_list_names_what_was_in_force_newest_first(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    assert policy("list", folder).stdout == "none was in force yet: `gateway serve` keeps what it serves\n"
    tags = [keep(folder, number) for number in (1, 2)]
    lines = policy("list", folder).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["2", "1970-01-01", "00:16:42", "UTC", tags[1]],
        ["1", "1970-01-01", "00:16:41", "UTC", tags[0]],
    ]
    listed = json.loads(policy("list", folder, "--json").stdout)["versions"]
    assert [(one["version"], one["policy"]) for one in listed] == [(2, tags[1]), (1, tags[0])]


def test_the_diff_shows_lines_of_the_policy_and_the_promises_that_change(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    old = keep(folder, 1)
    assert policy("diff", folder).stdout == f"{old}: nothing differs\n"
    observing(folder, f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}")
    shown = policy("diff", folder)
    lines = shown.stdout.splitlines()
    assert (shown.exit_code, lines[0], lines[1]) == (0, f"--- {old}", f"+++ {tag_in(folder)}")
    assert sum(line.startswith("+    observe: {until: ") for line in lines) == 1
    lost = [line for line in lines if line.startswith("- promised: ")]
    assert "- promised: At most 2 % of good rows are stopped by the guards together" in lost[0]
    assert not any(line.startswith("+ promised: ") for line in lines)
    fields = json.loads(policy("diff", folder, "1", "--json").stdout)
    assert (fields["old"], len(fields["lost"])) == (old, len(lost))


def test_a_policy_that_is_applied_replaces_the_files_and_a_rollback_puts_them_back(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    old = keep(folder, 1)
    before = files_of(folder)
    source = letters(tmp_path / "new", VERSION_2)
    rebound(source, ("{defer: certified}", "{refuse: certified}"))
    done = policy("apply", folder, "--from", source)
    new = tag_in(source)
    assert (done.exit_code, tag_in(folder)) == (0, new), done.output
    assert done.stdout.splitlines() == [
        f"{folder}: {new} (gateway.yaml, certificate.json)",
        "no running gateway has its state here: the next start, or reload, takes it",
    ]
    done = policy("rollback", folder, "--json")
    assert json.loads(done.stdout)["policy"] == old
    assert files_of(folder) == before
    written = (folder / VAR / "decisions-command-line.jsonl").read_bytes().splitlines()
    acts = [(line["act"], line["on"]) for line in map(orjson.loads, written)]
    assert acts == [("policy_apply", new), ("policy_rollback", old)]
    assert not list((folder / VAR).glob("candidate-*"))


REFUSED: dict[str, tuple[tuple[str, str], str]] = {
    "a stale certificate": (("false_alarm_budget: *", "false_alarm_budget: 0.1"), "digests.policy"),
    "an unknown field": (("expose:", "reveal: 1\nexpose:"), "reveal"),
    "a model that is not there": (("path: fallback.onnx", "path: other.onnx"), "other.onnx"),
    "a model outside": (("path: fallback.onnx", "path: ../fallback.onnx"), "lies outside the folder"),
}


@pytest.mark.parametrize(("change", "named"), REFUSED.values(), ids=REFUSED)
def test_a_policy_that_check_refuses_changes_no_file_and_its_problems_name_the_file_that_was_given(
    tmp_path: Path, change: tuple[str, str], named: str
) -> None:
    folder = letters(tmp_path)
    before = files_of(folder)
    source = other_file(folder, tmp_path, change)
    done = policy("apply", folder, "--from", source)
    assert (done.exit_code, files_of(folder)) == (2, before)
    assert named in done.stderr
    assert "candidate-" not in done.stderr
    problems = json.loads(policy("apply", folder, "--from", source, "--json").stdout)["problems"]
    assert {Path(one["file"]).parent for one in problems} <= {folder, source.parent}


def test_a_rollback_to_a_version_of_another_model_is_refused_with_the_model_that_is_missing(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)
    keep(folder, 1)
    put_version(folder, 2)
    digest = json.loads((folder / VAR / "policies" / "000001" / "version.json").read_text())["models"]
    shutil.copy(folder / "fallback.onnx", folder / "primary.onnx")
    before = files_of(folder)
    done = policy("rollback", folder, "1")
    assert (done.exit_code, files_of(folder)) == (2, before)
    assert f"{folder / 'primary.onnx'}: is another model than that of the version" in done.stderr
    assert digest["primary.onnx"] in done.stderr
    (folder / "primary.onnx").unlink()
    assert f"{folder / 'primary.onnx'}: is missing" in policy("rollback", folder, "1").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diff", "FOLDER"), "no policy of it was in force yet"),
        (("rollback", "FOLDER"), "none to go back to"),
        (("diff", "FOLDER", "7"), "VERSION: '7' is no version; there are none"),
        (("list", "FOLDER/nothing"), "is no folder"),
        (("apply", "FOLDER", "--from", "FOLDER/nothing"), "gateway.yaml: cannot be read"),
    ],
)
def test_wrong_input_is_named_and_exits_with_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    folder = letters(tmp_path)
    done = policy(*(one.replace("FOLDER", str(folder)) for one in arguments))
    assert done.exit_code == 2
    assert said in done.stderr


def test_check_names_the_guards_that_are_observed_and_those_that_are_enforced_again(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    observing(observing(folder, "2031-01-31"), "2020-01-31", "rate")
    done = gateway("check", folder)
    assert done.exit_code == 0, done.output
    warned = (
        "warning: the guard ood stops nothing until 2031-01-31 00:00 UTC: it is only observed, and no promise"
    )
    assert f"{warned} is in force meanwhile" in done.stderr
    ended = "observed: the guard rate was only observed until 2020-01-31 00:00 UTC; now it is enforced"
    assert ended in done.stdout
    assert "not promised: Of anything, while this is so: the guard ood is only observed until" in done.stdout
    ready: dict[str, Any] = json.loads(gateway("check", folder, "--json").stdout)
    assert ready["observed"] == [
        {"guard": "rate", "until": "2020-01-31 00:00 UTC", "enforced": True},
        {"guard": "ood", "until": "2031-01-31 00:00 UTC", "enforced": False},
    ]
    assert ready["promises"] == []


def in_force(served: Served) -> str:
    return str(served.admin.get("/policy").json()["tag"])


def test_a_running_gateway_takes_what_is_applied_and_rolled_back_and_keeps_the_old_one_if_it_cannot(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)
    command = [sys.executable, "-m", "gateway", "policy"]
    with serving(folder, "--local") as served:
        old = in_force(served)
        source = other_file(folder, tmp_path, VERSION_2)
        done = subprocess.run(
            [*command, "apply", folder, "--from", source], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("in force at 1 of 1 replicas\n")
        assert in_force(served) == tag_in(folder) != old
        assert (policy("rollback", folder).exit_code, in_force(served)) == (0, old)
        edit(source.parent, ("anonymous: loopback", "anonymous: loopback, base_path: /a"))
        kept = policy("apply", folder, "--from", source)
        assert (kept.exit_code, in_force(served)) == (1, old)
        assert "the old policy stays in force: " in kept.stderr
        assert "a change of base_path needs a restart" in kept.stderr
