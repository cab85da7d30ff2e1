"""`gateway admin`: a token printed once, opening the administration of a running gateway by role."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest

from gateway.serving.folders import deployment_folders, state_folder
from tests.support.served import CONFIGS, Served, copy_of, serving


def admin(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "admin", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def status_of(served: Served, path: str, token: str, method: str = "GET") -> int:
    headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
    return httpx.request(method, f"{served.admin.base_url}{path}", headers=headers).status_code


def test_a_person_is_added_to_a_running_gateway_and_revoked_from_it(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with serving(folder, "--local") as served:
        added = admin("add", "ada", folder, "--role", "viewer")
        token = added.stdout.strip()
        assert (added.returncode, added.stderr, added.stdout.count("\n")) == (0, "", 1)
        assert status_of(served, "/status", token) == 200
        assert status_of(served, "/policy/reload", token, "POST") == 403
        scraper = admin("add", "prometheus", folder, "--role", "scraper").stdout.strip()
        assert (status_of(served, "/metrics", scraper), status_of(served, "/status", scraper)) == (200, 403)
        operator = json.loads(admin("add", "ada", folder, "--role", "operator", "--json").stdout)
        assert (operator["name"], operator["role"]) == ("ada", "operator")
        assert status_of(served, "/status", token) == 401, "the earlier token is replaced"
        assert status_of(served, "/policy/reload", operator["token"], "POST") == 200
        assert admin("revoke", "ada", folder).stdout == "ada is revoked\n"
        assert status_of(served, "/status", operator["token"]) == 401
    written = (folder / "var" / "decisions-command-line.jsonl").read_bytes().splitlines()
    acts = [(line["act"], line["on"]) for line in map(orjson.loads, written)]
    names = ["ada", "prometheus", "ada", "ada"]
    assert acts == list(zip(["admin_add"] * 3 + ["admin_revoke"], names, strict=True))


def test_the_list_names_persons_and_roles_and_no_hash(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert admin("list", "--state-dir", state).stdout.startswith("no persons: ")
    admin("add", "ada", "--role", "operator", "--state-dir", state)
    admin("add", "grace", "--role", "reviewer", "--identity", "grace@example.org", "--state-dir", state)
    shown = admin("list", "--state-dir", state).stdout.splitlines()
    assert [line.split()[:2] for line in shown] == [["ada", "operator"], ["grace", "reviewer"]]
    assert shown[1].endswith("grace@example.org")
    listed = json.loads(admin("list", "--state-dir", state, "--json").stdout)["persons"]
    assert [set(one) for one in listed] == [{"name", "role", "added_s", "identity"}] * 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "ada", "--role", "operater", "--state-dir", "*"), "did you mean 'operator'?"),
        (("add", "Ada", "--state-dir", "*"), "NAME: String should match pattern"),
        (("add", "admin", "--state-dir", "*"), "admin is the name of the token in the environment"),
        (("add", "ada"), "give the folders that are served, as to `gateway serve`, or --state-dir"),
        (("add", "ada", "*"), "gateway.yaml: cannot be read: No such file or directory"),
        (("revoke", "adda", "--state-dir", "*"), "NAME: 'adda' is not a person in "),
        (("list", "*"), "gateway.yaml: cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    folder = tmp_path / "somewhere"
    done = admin(*(str(folder) if one == "*" else one for one in arguments))
    assert (done.returncode, done.stdout) == (2, "") and says in done.stderr
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to("/sys/kernel")  # where nothing can be written, by root neither
    done = admin("add", "ada", "--state-dir", tmp_path / "state")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path}/state/") and "a running gateway writes to" in done.stderr


def test_several_deployments_without_a_folder_for_state_keep_persons_beside_the_first(tmp_path: Path) -> None:
    for name in ("letters", "fashion"):
        (tmp_path / "all" / name).mkdir(parents=True)
        shutil.copy(CONFIGS / name / "gateway.yaml", tmp_path / "all" / name)
    done = admin("add", "ada", tmp_path / "all", "--role", "operator")
    assert done.returncode == 0, done.stderr
    assert [path.parent.parent.name for path in tmp_path.rglob("persons.jsonl")] == ["fashion"]
    folders = deployment_folders([tmp_path / "all"])
    assert state_folder(folders, None) == tmp_path / "all" / "fashion" / "var", (
        "where `gateway serve` reads them"
    )


def test_persons_of_an_invalid_file_are_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    admin("add", "ada", "--state-dir", tmp_path)
    file = tmp_path / "persons.jsonl"
    file.write_text("{\n")
    for command in (("add", "grace"), ("list",), ("revoke", "ada")):
        done = admin(*command, "--state-dir", tmp_path)
        assert done.returncode == 2 and f"{file}:1: is no person: no JSON" in done.stderr
    assert file.read_text() == "{\n"
