"""Certificates for tests, made by the `openssl` command, and contexts for clients that trust them."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("-newkey", "rsa:2048")


def certificate(
    folder: Path,
    name: str = "own",
    kind: tuple[str, ...] = EC,
    names: str = "DNS:localhost,IP:127.0.0.1",
    *more: str,
) -> tuple[Path, Path]:
    """A self-signed certificate for these names, and its key. more: further options of `openssl req`."""
    folder.mkdir(exist_ok=True)
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    openssl(
        *(
            "req",
            "-x509",
            "-nodes",
            *kind,
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            f"subjectAltName={names}",
            *more,
        ),
        *("-keyout", str(key), "-out", str(pem)),
    )
    return pem, key


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def trusting(pem: Path) -> ssl.SSLContext:
    """For a client that trusts this certificate alone."""
    return ssl.create_default_context(cafile=str(pem))
