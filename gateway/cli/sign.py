"""`gateway sign`: signs a deployment's certificate with a key that is kept outside its folder."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fallbacks.regular_file import read_regular
from gateway.cli.options import AsJson, Folder, app, exit_with_problems, exit_with_usage_error, print_line
from gateway.core.errors import Problems

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MOST_BYTES = 16 * 1024
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@app.command()
def sign(
    folder: Folder,
    key: Annotated[Path, typer.Option(help="The Ed25519 private key: a PEM file outside the folder.")],
    new_key: Annotated[bool, typer.Option("--new-key", help="Makes that key first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Signs the certificate of a deployment that can be loaded, and prints the public key."""
    from gateway.deployment.artifacts import load_artifacts
    from gateway.deployment.deployment import Deployment
    from gateway.deployment.signature import SIGNATURE_FILE, encoded
    from gateway.deployment.signature import sign as write_signature

    place = key.resolve()
    if place.is_relative_to(folder.resolve()):
        exit_with_usage_error(f"--key: {key} is inside {folder}, whose editors could then sign; move it out")
    try:
        load_artifacts(Deployment.read(folder)).close()
    except Problems as error:
        exit_with_problems(error, as_json)
    private = _new_key(key) if new_key else _read_key(key)
    write_signature(folder, private)
    public = encoded(private.public_key())
    if as_json:
        print_line(json.dumps({"signature": str(folder / SIGNATURE_FILE), "public_key": public}))
        return
    print_line(f"signed: {folder / SIGNATURE_FILE}")
    print_line(f"public key: {public}")


def _new_key(path: Path) -> Ed25519PrivateKey:
    """A new key in a file that its owner alone can read. Exits with code 2 where it is there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from gateway.private_files import write_private_file

    if path.exists():
        exit_with_usage_error(f"--new-key: {path} is there already; leave --new-key out to sign with it")
    made = Ed25519PrivateKey.generate()
    write_private_file(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _read_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file. Exits with code 2 where it is none, or where others can read it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    make = "make one with --new-key, or `openssl genpkey -algorithm ed25519`"
    try:
        content = read_regular(path, MOST_BYTES, "a private key is short")
    except ValueError:
        exit_with_usage_error(f"--key: {path} is no file with a private key; {make}")
    if path.stat().st_mode & OTHERS:
        exit_with_usage_error(f"--key: others than its owner may read or write {path}; chmod 600 it")
    try:
        found = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, Ed25519PrivateKey):
        exit_with_usage_error(f"--key: {path} holds no Ed25519 private key in PEM without a password; {make}")
    return found
