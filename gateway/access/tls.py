"""TLS by configuration: the certificate and key that `serving.tls` names, for both listeners.

Read once, at the start of a replica: a renewed certificate takes effect at a restart, as all of `serving`.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment

FIELD = ("serving", "tls")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """For listeners. certificate, key: the PEM files, for gRPC; context: the same, for HTTP.

    names: for which the certificate is valid, as `example.org` or `*.example.org`.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    context: ssl.SSLContext
    names: tuple[str, ...] = ()


def load_tls(deployment: Deployment) -> Tls | None:
    """TLS as the policy configures it; None if it does not.

    Raises:  PolicyError where a file is missing or invalid, or the key is not that of the certificate.
    """
    folder, files = deployment.folder, deployment.policy.serving.tls
    if files is None:
        return None
    certificate, key = (
        _read(deployment, "certificate", files.certificate),
        _read(deployment, "key", files.key),
    )
    _check_certificate(deployment, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # With an empty password OpenSSL does not prompt for that of an encrypted key.
        context.load_cert_chain(folder / files.certificate, folder / files.key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise PolicyError([_problem(deployment, error)]) from None
    return Tls(certificate, key, context, _names(context, certificate))


def _names(serving: ssl.SSLContext, pem: bytes) -> tuple[str, ...]:
    """The names in a certificate: what a client sees of it, in a handshake in memory. Cost: 2 ms.

    None if a client that trusts this certificate would refuse it, as one that has expired.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    asking.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        found = client.getpeercert() or {}
    except (ssl.SSLError, ValueError) as error:
        log.warning("clients will refuse the certificate, whose names are not taken as hosts: %s", error)
        return ()
    return tuple(str(pair[1]) for pair in found.get("subjectAltName", ()) if pair[0] == "DNS")


def _read(deployment: Deployment, name: str, path: str) -> bytes:
    try:
        return (deployment.folder / path).read_bytes()
    except (OSError, ValueError) as error:
        reason = f"{path!r} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise PolicyError([deployment.problem((*FIELD, name), reason)]) from None


def _check_certificate(deployment: Deployment, pem: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise PolicyError(
            [deployment.problem((*FIELD, "certificate"), "is no PEM file of a certificate")]
        ) from None


def _problem(deployment: Deployment, error: Exception) -> Problem:
    """Which of the two files OpenSSL rejects, though the certificate by itself is valid."""
    reason = getattr(error, "reason", None)
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return deployment.problem((*FIELD, "key"), "is not the key of the certificate")
    if reason is None:
        return deployment.problem((*FIELD, "key"), "is no PEM file of a private key without a password")
    return deployment.problem((*FIELD, "certificate"), f"cannot serve: {reason.lower().replace('_', ' ')}")
