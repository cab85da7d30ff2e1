"""A deployment is served only with the signature that is required of it, from the policy or from outside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from gateway.cli.options import app
from gateway.core.errors import ArtifactError, PolicyError
from gateway.deployment.deployment import Deployment
from gateway.deployment.signature import KEY_VARIABLE, SIGNATURE_FILE, check_signature, encoded, sign
from gateway.serving.gateway import Gateway
from tests.support.deployments import CONFIGS, edit, letters, opened, run

OURS, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2))
PUBLIC = encoded(OURS.public_key())


def required(folder: Path, key: str = PUBLIC) -> None:
    """Makes the policy require a signature."""
    edit(folder, ("serving: {", f'serving: {{require_signature: "{key}", '))


def refusal(folder: Path, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ArtifactError) as caught:
        check_signature(Deployment.read(folder), environment or {})
    (problem,) = caught.value.problems
    return str(problem)


def test_a_signed_deployment_starts_and_an_unsigned_one_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    required(folder)
    with pytest.raises(ArtifactError) as caught:
        Gateway.open(folder)
    assert "certificate.sig: is missing or no signature" in str(caught.value)
    assert f"gateway sign {folder} --key KEY" in str(caught.value)

    sign(folder, OURS)

    async def main() -> None:
        async with opened(folder):
            pass

    run(main)


def test_without_a_requirement_nothing_is_asked(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    check_signature(Deployment.read(folder), {})
    (folder / SIGNATURE_FILE).write_text("nonsense")
    check_signature(Deployment.read(folder), {})


def test_another_key_is_named_beside_the_required_one(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    required(folder)
    sign(folder, OTHER)
    found = refusal(folder)
    assert f"is of the key {encoded(OTHER.public_key())}" in found
    assert f"serving.require_signature requires {PUBLIC}" in found


def loosened(folder: Path) -> None:
    held = orjson.loads((folder / "certificate.json").read_bytes())
    held["population"] = "all rows of the world"
    (folder / "certificate.json").write_bytes(orjson.dumps(held))


CHANGES: dict[str, Callable[[Path], object]] = {
    "the certificate": loosened,
    "the samples": lambda folder: (folder / "samples.npz").write_bytes(b"others"),
    "the samples removed": lambda folder: (folder / "samples.npz").unlink(),
    "an upstream's answers added": lambda folder: (folder / "upstreams.json").write_text("{}"),
    "the outliers": lambda folder: (folder / "outliers.npz").write_bytes(b"others"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_file_is_no_longer_the_one_that_was_signed(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = letters(tmp_path)
    (folder / "samples.npz").write_bytes((CONFIGS / "letters" / "samples.npz").read_bytes())
    required(folder)
    sign(folder, OURS)
    check_signature(Deployment.read(folder), {})
    change(folder)
    assert "is not of these files" in refusal(folder)


NO_SIGNATURES: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello",
    "not ascii": b"\xff\xfe",
    "a key alone": PUBLIC.encode(),
    "a short signature": f"{PUBLIC}\nAAAA\n".encode(),
    "another one": f"{PUBLIC}\n{'A' * 86}==\n".encode(),
    "very long": b"A" * 2_000_000,
}


@pytest.mark.parametrize("content", NO_SIGNATURES.values(), ids=NO_SIGNATURES)
def test_what_is_no_signature_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = letters(tmp_path)
    required(folder)
    (folder / SIGNATURE_FILE).write_bytes(content)
    assert SIGNATURE_FILE in refusal(folder)


def test_a_requirement_from_outside_holds_whatever_the_policy_says(tmp_path: Path) -> None:
    """An editor of the folder signs with another key, and has the policy require that one."""
    folder = letters(tmp_path)
    sign(folder, OTHER)
    assert f"{KEY_VARIABLE} requires {PUBLIC}" in refusal(folder, {KEY_VARIABLE: PUBLIC})
    required(folder, encoded(OTHER.public_key()))
    check_signature(Deployment.read(folder), {})
    assert f"{KEY_VARIABLE} requires {PUBLIC}" in refusal(folder, {KEY_VARIABLE: PUBLIC})
    sign(folder, OURS)
    assert "serving.require_signature requires" in refusal(folder, {KEY_VARIABLE: PUBLIC})


def test_a_key_from_outside_that_is_none_refuses_everything(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    sign(folder, OURS)
    for wrong in ("", "hello", "AAAA"):
        assert "is no Ed25519 public key" in refusal(folder, {KEY_VARIABLE: wrong})


def test_a_reload_of_an_unsigned_change_leaves_the_pipeline_in_force(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    required(folder)
    sign(folder, OURS)

    async def main() -> None:
        async with opened(folder) as gateway:
            before = gateway.loaded.tag
            held = (folder / "certificate.json").read_bytes()
            loosened(folder)
            with pytest.raises(ArtifactError, match="is not of these files"):
                await gateway.reload()
            (folder / "certificate.json").write_bytes(held)
            edit(folder, (f'require_signature: "{PUBLIC}", ', ""))
            with pytest.raises(PolicyError, match="require_signature needs a restart"):
                await gateway.reload()
            assert gateway.loaded.tag == before

    run(main)


def signed_by_command(folder: Path, key: Path, *more: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["sign", str(folder), "--key", str(key), *more])
    return found.exit_code, found.output


def test_the_command_makes_a_key_signs_and_prints_what_to_require(tmp_path: Path) -> None:
    folder, key = letters(tmp_path), tmp_path / "ours.pem"
    code, output = signed_by_command(folder, key, "--new-key", "--json")
    assert code == 0
    required(folder, json.loads(output)["public_key"])
    check_signature(Deployment.read(folder), {})
    assert key.stat().st_mode & 0o077 == 0
    again = signed_by_command(folder, key, "--json")
    assert again == (0, output)


def test_a_key_of_openssl_signs(tmp_path: Path) -> None:
    folder, key = letters(tmp_path), tmp_path / "ours.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
    key.chmod(0o600)
    assert signed_by_command(folder, key)[0] == 0


def rsa(path: Path) -> None:
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-out", str(path)], check=True, capture_output=True
    )
    path.chmod(0o600)


def text(path: Path) -> None:
    path.write_text("hello")
    path.chmod(0o600)


def readable(path: Path) -> None:
    signed_by_command(letters(path.parent / "made"), path, "--new-key")
    path.chmod(0o644)


NO_KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda path: None, "is no file with a private key"),
    "text": (text, "holds no Ed25519 private key"),
    "of another kind": (rsa, "holds no Ed25519 private key"),
    "readable by others": (readable, "others than its owner may read or write"),
    "a FIFO": (os.mkfifo, "is no file with a private key"),
}


@pytest.mark.parametrize(("make", "said"), NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_private_key_of_ones_own_is_refused(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    folder, key = letters(tmp_path), tmp_path / "key.pem"
    make(key)
    code, output = signed_by_command(folder, key)
    assert code == 2 and said in output
    assert not (folder / SIGNATURE_FILE).exists()


def test_a_key_inside_the_folder_is_refused_also_through_a_link(tmp_path: Path) -> None:
    folder, link = letters(tmp_path), tmp_path / "link.pem"
    link.symlink_to(folder / "key.pem")
    for key in (folder / "key.pem", folder / "var" / "key.pem", link):
        code, output = signed_by_command(folder, key, "--new-key")
        assert code == 2 and "is inside" in output


def test_what_cannot_be_loaded_is_not_signed(tmp_path: Path) -> None:
    folder, key = letters(tmp_path), tmp_path / "key.pem"
    (folder / "scores.npz").unlink()
    code, output = signed_by_command(folder, key, "--new-key")
    assert code == 2 and "scores.npz" in output
    assert not key.exists() and not (folder / SIGNATURE_FILE).exists()
