"""`certificate.sig`: an Ed25519 signature over the certificate and the files beside it that it does not bind.

The certificate's digests bind models, guards, scores, data and the bound part of the policy. They protect
against accidents: an editor of the folder can write them anew. A signature made with a key that is kept
outside the folder protects against the editor, if the public key that it must have is given from outside as
well (`gateway serve --require-signature`, `GATEWAY_REQUIRE_SIGNATURE`); the policy's `require_signature`
alone holds only as long as the policy is not edited.

What is signed is `CONTEXT` and one line a file, `NAME sha256` or `NAME -` where there is none.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fallbacks.regular_file import read_regular
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.certificate import CERTIFICATE_FILE
from gateway.deployment.deployment import Deployment
from gateway.deployment.upstreams import UPSTREAMS_FILE

SIGNATURE_FILE = "certificate.sig"
SIGNED_FILES = (CERTIFICATE_FILE, UPSTREAMS_FILE, "samples.npz", "outliers.npz")
KEY_VARIABLE = "GATEWAY_REQUIRE_SIGNATURE"
CONTEXT = b"failsafe-gateway certificate 1\n"
SIGNATURE_BYTES, MOST_BYTES = 64, 1024


def statement(folder: Path) -> bytes:
    """What is signed. Raises OSError."""
    return CONTEXT + b"".join(f"{name} {_digest(folder / name)}\n".encode() for name in SIGNED_FILES)


def sign(folder: Path, key: Ed25519PrivateKey) -> None:
    """Writes `certificate.sig`: the public key and the signature, base64, one a line. Raises OSError."""
    signature = base64.b64encode(key.sign(statement(folder))).decode()
    (folder / SIGNATURE_FILE).write_text(f"{encoded(key.public_key())}\n{signature}\n", "ascii")


def encoded(key: Ed25519PublicKey) -> str:
    """A public key as the policy and the environment have it: base64 of its 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def check_signature(deployment: Deployment, environment: Mapping[str, str]) -> None:
    """Raises ArtifactError unless the folder is signed with every key that is required of it.

    environment: may have `GATEWAY_REQUIRE_SIGNATURE`, a public key that the folder cannot change.
    """
    problems = [
        problem
        for source, key in _required(deployment, environment)
        if (problem := _refused(deployment.folder, source, key)) is not None
    ]
    if problems:
        raise ArtifactError(problems)


def _required(deployment: Deployment, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The public keys that the signature must be of, and where each is required."""
    if (given := environment.get(KEY_VARIABLE)) is not None:
        yield KEY_VARIABLE, given
    if (stated := deployment.policy.serving.require_signature) is not None:
        yield "serving.require_signature", stated


def _refused(folder: Path, source: str, key: str) -> Problem | None:
    """Why the signature does not do for a required key."""
    path, sign_again = folder / SIGNATURE_FILE, f"sign it with `gateway sign {folder} --key KEY`"
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))
    except ValueError:
        return Problem(source, "is no Ed25519 public key: base64 of 32 bytes, as `gateway sign` prints it")
    signed = _read(path)
    if signed is None:
        return Problem("", f"is missing or no signature, and {source} requires one: {sign_again}", str(path))
    by, signature = signed
    if by != encoded(public):
        what = f"is of the key {by}, and {source} requires {encoded(public)}"
        return Problem("", f"{what}: {sign_again}", str(path))
    try:
        public.verify(signature, statement(folder))
    except InvalidSignature:
        what = f"is not of these files ({', '.join(SIGNED_FILES)}): one has changed since"
        return Problem("", f"{what}; if that is meant, {sign_again}", str(path))
    return None


def _read(path: Path) -> tuple[str, bytes] | None:
    """The public key and the signature; None if the file is missing or of another form."""
    try:
        by, signature = read_regular(path, MOST_BYTES, "sign it again").decode("ascii").split()
        held = base64.b64decode(signature, validate=True)
    except ValueError:
        return None
    return (by, held) if len(held) == SIGNATURE_BYTES else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "-"
