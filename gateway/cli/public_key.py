"""`gateway serve --require-signature FILE`: requires a signature of everything that this process loads."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fallbacks.regular_file import read_regular
from gateway.cli.options import exit_with_usage_error
from gateway.deployment.signature import KEY_VARIABLE, encoded

MOST_BYTES = 16 * 1024
OPTION = "--require-signature"


def require(path: Path, folders: Sequence[Path]) -> None:
    """Puts the key into the environment, which replicas inherit. Exits with code 2 where it is none."""
    if any(path.resolve().is_relative_to(folder.resolve()) for folder in folders):
        exit_with_usage_error(f"{OPTION}: {path} is inside what it is to protect; keep it outside the folder")
    try:
        content = read_regular(path, MOST_BYTES, "a public key is short")
    except ValueError:
        exit_with_usage_error(f"{OPTION}: {path} is no file with a public key")
    key = _read(content)
    if key is None:
        exit_with_usage_error(
            f"{OPTION}: {path} holds no Ed25519 public key, in PEM or as `gateway sign` prints it"
        )
    os.environ[KEY_VARIABLE] = encoded(key)


def _read(content: bytes) -> Ed25519PublicKey | None:
    try:
        if content.startswith(b"-----BEGIN"):
            found = load_pem_public_key(content)
            return found if isinstance(found, Ed25519PublicKey) else None
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(content.strip(), validate=True))
    except (ValueError, UnsupportedAlgorithm):
        return None
