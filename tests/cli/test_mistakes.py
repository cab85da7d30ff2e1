"""A mistake in a file, a flag or the environment is one line that says what to do, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.served import copy_of, free_port, serving


def gateway(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, at the end of which nothing is left running; no traceback may be printed."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def serve(folder: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()), "--admin-port", str(free_port()))
    return gateway("serve", str(folder), *ports, *flags, **environment)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment in which no test writes."""
    return copy_of("letters", tmp_path_factory.mktemp("mistakes"))


@pytest.mark.parametrize("command", ["check", "serve", "calibrate", "key", "demo"])
def test_what_is_no_deployment_folder_is_named(letters: Path, tmp_path: Path, command: str) -> None:
    more = {"key": ("bob",), "calibrate": ("--plan",)}.get(command, ())
    for folder, says in (
        (tmp_path / "nowhere", "gateway.yaml: cannot be read: No such file or directory"),
        (tmp_path, "gateway.yaml: cannot be read: No such file or directory"),
        (letters / "gateway.yaml", ": is a file; a deployment is a folder with a gateway.yaml"),
    ):
        done = gateway(command, str(folder), *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(str(folder))
        assert done.stderr.endswith(f"{says}\n")


@pytest.mark.parametrize("flags", [(), ("--local",)])
@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "is empty: set it to a secret text, or unset it and a random one is printed at start"),
        ("a\n", "holds a blank, a line end or a character beyond ASCII, which no client can send as a token"),
        (
            "hunter2-hunter2",
            "has 15 characters and could be guessed: 16 are the least; unset it and a random one is printed "
            "at start",
        ),
        (
            "tökén",
            "holds a blank, a line end or a character beyond ASCII, which no client can send as a token",
        ),
    ],
)
def test_a_token_that_no_client_can_send_is_named(
    letters: Path, token: str, says: str, flags: tuple[str, ...]
) -> None:
    done = serve(letters, *flags, GATEWAY_ADMIN_TOKEN=token)
    assert (done.returncode, done.stderr) == (2, f"GATEWAY_ADMIN_TOKEN: {says}\n")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "max_queue_size must be a positive integer."),
        (
            "OTEL_ATTRIBUTE_COUNT_LIMIT",
            "x",
            "OTEL_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer but got x",
        ),
    ],
)
def test_a_setting_that_opentelemetry_does_not_take_is_named(
    tmp_path: Path, variable: str, value: str, says: str
) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    done = serve(copy_of("letters", tmp_path), "--local", **endpoint, **{variable: value})
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert variable in last.split(": ")[0]
    assert last.endswith(f": OpenTelemetry cannot be set up with them: {says}; correct or unset them")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    (folder / "var").symlink_to("/sys/kernel")  # where nothing can be written, by root neither
    key = gateway("key", str(folder), "bob")
    assert (key.returncode, key.stdout) == (2, "")
    assert key.stderr.startswith(f"{folder}/var")
    assert key.stderr.endswith("; keys are kept in the folder that a running gateway writes to\n")
    assert serve(folder, "--local").returncode == 2


def test_a_folder_may_be_deeper_than_the_address_of_a_unix_socket_is_long(tmp_path: Path) -> None:
    (tmp_path / ("d" * 100)).mkdir()
    folder = copy_of("letters", tmp_path / ("d" * 100))
    with serving(folder, "--local") as served:
        assert sorted(path.suffix for path in (folder / "var" / "run").iterdir()) == [".grpc", ".sock"]
        assert served.data.get("/v2/health/ready").status_code == 200
    assert list((folder / "var" / "run").iterdir()) == []


def test_a_port_that_is_none_or_given_twice_is_refused(letters: Path) -> None:
    for port in ("-1", "0", "65536"):
        done = serve(letters, "--local", "--port", port)
        assert (done.returncode, "--port" in done.stderr) == (2, True)
    port = str(free_port())
    done = serve(letters, "--local", "--grpc-port", port, "--admin-port", port)
    assert (done.returncode, done.stderr) == (
        2,
        f"port {port} is given twice: HTTP, gRPC and administration need one each\n",
    )


def test_replicas_are_at_least_one(letters: Path) -> None:
    assert "--replicas" in serve(letters, "--replicas", "-2").stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("Bad Name",), "NAME: String should match pattern '^[a-z][a-z0-9_-]{0,62}$', not 'Bad Name'\n"),
        (("bob", "--per-s", "inf"), "--per-s: Input should be a finite number, not inf\n"),
        (("bob", "--scope", "infr"), "--scope: 'infr' is not a scope; did you mean 'infer'?\n"),
    ],
)
def test_a_key_that_cannot_be_made_is_one_line(letters: Path, words: tuple[str, ...], says: str) -> None:
    done = gateway("key", str(letters), *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", says)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", "a,b\n1,2\n", "y: missing: name the array or column of labels, or true values, y"),
        ("rows.csv", "a,b\n1\n", "line 2: has 1 cells; the header names 2 columns"),
        (
            "rows.npz",
            "",
            "not a readable .npz of plain arrays (File is not a zip file); save one with np.savez",
        ),
        ("rows.xlsx", "", "'.xlsx' is no format of rows; give .npz, .csv or .parquet"),
        (
            "no/such.npz",
            None,
            "cannot be read: No such file or directory; give held-out rows as .npz, .csv or",
        ),
        ("no/such.parquet", None, "cannot be read: No such file or directory; give held-out rows as .npz"),
    ],
)
def test_rows_that_cannot_be_read_are_named(
    letters: Path, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    done = gateway("calibrate", str(letters), "--data", str(tmp_path / name))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{tmp_path / name}: {says}")
    assert done.stderr.count("\n") == 1


def test_rows_are_read_from_a_table(letters: Path, tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).integers(0, 16, (40, 16)), np.arange(40) % 26
    table = "\n".join(",".join(map(str, [*row, label])) for row, label in zip(x, y, strict=True))
    header = ",".join([*(f"edge {i}" for i in range(16)), "y"])
    (tmp_path / "rows.csv").write_text(f"{header}\n{table}\n")
    done = gateway("calibrate", str(letters), "--plan", "--data", str(tmp_path / "rows.csv"))
    assert (done.returncode, "the file has 40" in done.stdout) == (0, True)


def test_the_demo_says_what_is_wrong_with_samples_before_it_starts_ray(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    (folder / "samples.npz").write_bytes(b"")
    ports = [str(free_port()) for _ in range(3)]
    listening = ("--port", ports[0], "--grpc-port", ports[1], "--admin-port", ports[2])
    done = gateway("demo", str(folder), "--once", *listening)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{folder}/samples.npz: ")
    assert (
        "save held-out rows there with np.savez('samples.npz', **{'attributes': rows}), or remove it"
        in done.stderr
    )


def test_a_disk_that_is_full_is_one_line(letters: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "check", str(letters)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_the_commands(shell: str) -> None:
    """Of the shell that is named: typer would take that among the ancestors of the tests."""
    as_named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "_COMPLETE" in gateway("--show-completion", shell, **as_named).stdout
