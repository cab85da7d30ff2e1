"""`gateway serve --require-signature FILE`: a requirement that no file of the deployment can take back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.cli.public_key import require
from gateway.deployment.signature import KEY_VARIABLE, encoded, sign
from tests.support.served import copy_of, free_port

OURS = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
PUBLIC = encoded(OURS.public_key())
PEM = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo


def gateway(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "content",
    [f"{PUBLIC}\n".encode(), PUBLIC.encode(), OURS.public_key().public_bytes(*PEM)],
    ids=["line", "no line end", "pem"],
)
def test_a_public_key_is_taken_as_it_was_printed_or_as_pem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")
    (tmp_path / "key").write_bytes(content)
    require(tmp_path / "key", [tmp_path / "letters"])
    assert os.environ[KEY_VARIABLE] == PUBLIC


NO_KEYS = {
    "nothing": b"",
    "text": b"hello",
    "short": b"AAAA",
    "a cut pem": b"-----BEGIN PUBLIC KEY-----\nAAAA\n",
    "another kind": X25519PrivateKey.generate().public_key().public_bytes(*PEM),
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_public_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        require(tmp_path / "key", [tmp_path / "letters"])
    assert ended.value.code == 2 and "holds no Ed25519 public key" in capsys.readouterr().err
    assert os.environ[KEY_VARIABLE] == ""


def test_a_key_inside_the_folder_or_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, said in ((tmp_path / "key", "is inside"), (tmp_path.parent / "none", "is no file")):
        with pytest.raises(SystemExit):
            require(path, [tmp_path])
        assert said in capsys.readouterr().err


def test_what_is_not_signed_is_not_served(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    (tmp_path / "key.pub").write_text(PUBLIC)
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()), "--admin-port", str(free_port()))
    words = ("serve", str(folder), "--local", *ports, "--require-signature", str(tmp_path / "key.pub"))
    done = gateway(*words)
    assert done.returncode == 2 and "certificate.sig" in done.stderr and "Traceback" not in done.stderr
    assert gateway("check", str(folder), **{KEY_VARIABLE: PUBLIC}).returncode == 2
    sign(folder, OURS)
    assert gateway("check", str(folder), **{KEY_VARIABLE: PUBLIC}).returncode == 0
