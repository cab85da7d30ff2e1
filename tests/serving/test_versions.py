"""The last policies that were in force: at most ten, once each, complete, for the gateway's user alone."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.core.errors import ArtifactError
from gateway.deployment.artifacts import tag_of
from gateway.deployment.certificate import CERTIFICATE_FILE, sha256
from gateway.deployment.deployment import VAR, Deployment
from gateway.serving.versions import MOST_KEPT, VERSIONS_FOLDER, keep_version, versions_in
from tests.support.deployments import edit, letters, opened, run


def tag_in(folder: Path) -> str:
    return tag_of(Deployment.read(folder).policy, sha256(folder / CERTIFICATE_FILE))


def put_version(folder: Path, number: int) -> str:
    """Gives the policy another version; its tag."""
    old = Deployment.read(folder).policy.version
    if old != str(number):
        edit(folder, (f'version: "{old}"', f'version: "{number}"'))
    return tag_in(folder)


def keep(folder: Path, number: int) -> str:
    """What a gateway does with a policy that it has put in force."""
    tag = put_version(folder, number)
    keep_version(folder, folder / VAR, tag, 1000.0 + number)
    return tag


def test_what_a_gateway_serves_and_what_it_reloads_is_kept_with_all_that_the_certificate_binds(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        async with opened(folder) as gateway:
            tags = [gateway.loaded.tag]
            assert gateway._keeping is not None
            await gateway._keeping
            put_version(folder, 2)
            assert await gateway.reload()
            tags.append(gateway.loaded.tag)
            assert not await gateway.reload()
            kept = versions_in(gateway.state)
            assert [one.tag for one in kept] == tags
            for name in ("gateway.yaml", "certificate.json", "guards.npz", "scores.npz"):
                assert (kept[-1].folder / name).read_bytes() == (folder / name).read_bytes()
            assert kept[-1].models == {
                name: sha256(folder / name) for name in ("primary.onnx", "fallback.onnx")
            }

    run(main)


def test_the_last_ten_are_kept_and_one_that_comes_back_is_the_newest_and_there_once(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    tags = [keep(folder, number) for number in range(1, 14)]
    kept = versions_in(folder / VAR)
    assert [one.tag for one in kept] == tags[-MOST_KEPT:]
    assert [one.number for one in kept] == list(range(4, 14))
    assert keep(folder, 7) == tags[6]
    kept = versions_in(folder / VAR)
    assert [one.tag for one in kept] == [*tags[3:6], *tags[7:], tags[6]]
    assert (kept[-1].number, kept[-1].at_s) == (14, 1007.0)


def test_replicas_that_take_the_same_policy_at_once_keep_it_once(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    tag = tag_in(folder)
    with ThreadPoolExecutor(4) as replicas:
        list(replicas.map(lambda _: keep_version(folder, folder / VAR, tag, 1.0), range(8)))
    assert [one.tag for one in versions_in(folder / VAR)] == [tag]


def test_a_folder_that_has_changed_since_is_not_kept_as_what_is_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = letters(tmp_path)
    tag = tag_in(folder)
    put_version(folder, 2)
    with caplog.at_level(logging.ERROR):
        keep_version(folder, folder / VAR, tag, 1.0)
    assert versions_in(folder / VAR) == []
    assert f"policy {tag} is not kept" in caplog.text


def test_a_copy_that_was_cut_short_is_no_version_and_hinders_none(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    draft = folder / VAR / VERSIONS_FOLDER / "draft"
    draft.mkdir(parents=True)
    (draft / "gateway.yaml").write_text("guards: [")
    assert versions_in(folder / VAR) == []
    tag = keep(folder, 1)
    assert [one.tag for one in versions_in(folder / VAR)] == [tag]


def test_a_damaged_record_is_named_with_what_to_do_and_stops_no_gateway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = letters(tmp_path)
    keep(folder, 1)
    [version] = versions_in(folder / VAR)
    (version.folder / "version.json").write_text("[]")
    with pytest.raises(ArtifactError, match=f"remove the folder {version.folder}"):
        versions_in(folder / VAR)
    keep(folder, 2)
    assert "is no record of a policy" in caplog.text
    shutil.rmtree(version.folder)
    tag = keep(folder, 2)
    assert [one.tag for one in versions_in(folder / VAR)] == [tag]


def test_versions_are_for_the_gateways_user_alone(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    keep(folder, 1)
    for path in (folder / VAR / VERSIONS_FOLDER).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
