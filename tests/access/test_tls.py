"""TLS by configuration: a problem of the files is reported with its place; where TLS is required."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gateway.access.tls import Tls, load_tls
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.replica import ListenAddress, Replica, refuse_public_bind
from gateway.serving.repository import Repository
from tests.support.certificates import EC, RSA, certificate, openssl
from tests.support.deployments import letters

ANONYMOUS = "serving: {anonymous: loopback"


def with_serving(folder: Path, more: str) -> Path:
    """The deployment with more settings in the last line of its policy."""
    path = folder / "gateway.yaml"
    path.write_text(path.read_text().replace(ANONYMOUS, f"{ANONYMOUS}, {more}" if more else ANONYMOUS))
    return folder


def loaded(folder: Path, pem: str, key: str) -> Tls:
    with_serving(folder, f"tls: {{certificate: {pem}, key: {key}}}")
    tls = load_tls(Deployment.read(folder))
    assert tls is not None
    return tls


def problem(folder: Path, pem: str, key: str) -> Problem:
    with pytest.raises(PolicyError) as caught:
        loaded(folder, pem, key)
    (one,) = caught.value.problems
    lines = (folder / "gateway.yaml").read_text().splitlines()
    assert one.file == str(folder / "gateway.yaml")
    assert lines[one.line - 1].startswith("serving:")
    return one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = letters(tmp_path)
    certificate(made / "tls")
    return made


def test_no_tls_is_no_problem(folder: Path) -> None:
    assert load_tls(Deployment.read(folder)) is None


def test_files_are_found_from_the_deployment_folder_and_given_as_bytes_and_as_a_context(folder: Path) -> None:
    tls = loaded(folder, "tls/own.pem", "tls/own.key")
    assert tls.certificate == (folder / "tls/own.pem").read_bytes()
    assert tls.key == (folder / "tls/own.key").read_bytes()
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert "PRIVATE" not in repr(tls)


def test_files_may_be_in_another_folder(folder: Path, tmp_path: Path) -> None:
    pem, key = certificate(tmp_path / "elsewhere", kind=RSA)
    assert loaded(folder, str(pem), str(key)).certificate == pem.read_bytes()


@pytest.mark.parametrize(
    ("pem", "key", "field", "what"),
    [
        ("tls/none.pem", "tls/own.key", "certificate", "'tls/none.pem' cannot be read: No such file"),
        ("tls/own.pem", "tls/none.key", "key", "'tls/none.key' cannot be read: No such file"),
        ("tls", "tls/own.key", "certificate", "Is a directory"),
        ('"a\\0b"', "tls/own.key", "certificate", "null"),
        ("tls/own.key", "tls/own.pem", "certificate", "is no PEM file of a certificate"),
        ("primary.onnx", "tls/own.key", "certificate", "is no PEM file of a certificate"),
        ("tls/own.pem", "tls/own.pem", "key", "is no PEM file of a private key"),
        ("tls/own.pem", "primary.onnx", "key", "is no PEM file of a private key"),
        ("tls/own.pem", "tls/other.key", "key", "is not the key of the certificate"),
        ("tls/own.pem", "tls/rsa.key", "key", "is not the key of the certificate"),
        ("tls/own.pem", "tls/locked.key", "key", "without a password"),
        ("tls/weak.pem", "tls/weak.key", "certificate", "cannot serve: ee key too small"),
    ],
)
def test_a_problem_is_reported_with_its_place(
    folder: Path, pem: str, key: str, field: str, what: str
) -> None:
    certificate(folder / "tls", "other")
    certificate(folder / "tls", "rsa", RSA)
    certificate(folder / "tls", "weak", ("-newkey", "rsa:512"))
    locked = ("ec", "-in", "tls/own.key", "-aes128", "-passout", "pass:secret", "-out", "tls/locked.key")
    openssl(*(str(folder / part) if part.startswith("tls/") else part for part in locked))
    one = problem(folder, pem, key)
    assert one.field == f"serving.tls.{field}"
    assert what in one.what


def test_a_file_that_may_not_be_read_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)  # root may read everything
    assert problem(folder, "tls/own.pem", "tls/own.key").what.endswith("Permission denied")


@pytest.mark.parametrize(
    "settings",
    ["{certificate: a}", "{key: a}", '{certificate: "", key: a}', "{certificate: a, key: 1}", "yes"],
)
def test_incomplete_settings_are_refused_when_the_policy_is_read(folder: Path, settings: str) -> None:
    with pytest.raises(PolicyError, match=r"serving\.tls"):
        Deployment.read(with_serving(folder, f"tls: {settings}"))


# ---------------------------------------------------------------- where it is required

LOOPBACK = ["127.0.0.1", "127.1.2.3", "::1", "localhost"]
PUBLIC = [
    "0.0.0.0",
    "::",
    "192.0.2.1",
    "10.0.0.1",
    "2001:db8::1",
    "::ffff:192.0.2.1",
    "gateway.example.com",
    "localhost.example.com",
    "LOCALHOST.",
    "127.1",
    "",
    "not an address",
]
TLS = "tls: {certificate: tls/own.pem, key: tls/own.key}"
PROXY = "trusted_proxies: [10.0.0.1]"


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("more", ["", TLS, PROXY, f"{TLS}, {PROXY}"])
def test_on_loopback_nothing_is_required(folder: Path, host: str, more: str) -> None:
    deployment = Deployment.read(with_serving(folder, more))
    refuse_public_bind(deployment, ListenAddress(host))


@pytest.mark.parametrize("host", PUBLIC)
@pytest.mark.parametrize("more", [TLS, PROXY, f"{TLS}, {PROXY}"])
def test_a_public_address_is_taken_with_tls_or_a_proxy_that_ends_it(
    folder: Path, host: str, more: str
) -> None:
    deployment = Deployment.read(with_serving(folder, more))
    refuse_public_bind(deployment, ListenAddress(host))


@pytest.mark.parametrize("host", PUBLIC)
@pytest.mark.parametrize("more", ["", "trusted_proxies: []"])
def test_a_public_address_is_refused_without_either(folder: Path, host: str, more: str) -> None:
    deployment = Deployment.read(with_serving(folder, more))
    with pytest.raises(PolicyError, match=r"serving\.tls.*loopback.*trusted_proxies"):
        refuse_public_bind(deployment, ListenAddress(host))


def test_a_replica_refuses_by_itself_however_it_is_started(folder: Path) -> None:
    """Ray starts replicas without `gateway serve`."""
    with pytest.raises(PolicyError, match="loopback"):
        Replica(Repository.open([folder]), ListenAddress("0.0.0.0", 0, 0), "token")


@pytest.mark.parametrize(
    ("host", "secure", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:80"),
        ("localhost", True, "https://localhost:80"),
        ("::1", True, "https://[::1]:80"),
    ],
)
def test_an_address_has_its_url(host: str, secure: bool, url: str) -> None:
    assert ListenAddress(host, 80).url(secure=secure) == url


def test_the_names_in_the_certificate_are_hosts_unless_clients_refuse_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = "DNS:models.example.org,DNS:*.example.org,IP:10.0.0.1"
    for name, more, found in (
        ("own", (), ("models.example.org", "*.example.org")),
        ("other", ("-addext", "extendedKeyUsage=clientAuth"), ()),
    ):
        folder = letters(tmp_path / name)
        certificate(folder, name, EC, names, *more)
        assert loaded(folder, f"{name}.pem", f"{name}.key").names == found
    assert "clients will refuse the certificate" in caplog.text
