"""Several deployments for one process: copies of configs/letters with their own names, some broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.deployments import FULL_RATE, edit, letters, rebound


def named(to: Path, name: str, *changes: tuple[str, str], patient: bool = True) -> Path:
    """A deployment of this name in `to/NAME`, with a certificate that is bound to it."""
    made = letters(to / f"making-{name}", FULL_RATE, *changes, patient=patient)
    if name != "letters":
        rebound(made, ("name: letters", f"name: {name}"))
    folder = made.rename(to / name)
    (to / f"making-{name}").rmdir()
    return folder


def unreadable(folder: Path) -> None:
    edit(folder, ("on_error: defer", "on_error: defre"))


def no_yaml(folder: Path) -> None:
    (folder / "gateway.yaml").write_text("{")


def no_policy(folder: Path) -> None:
    (folder / "gateway.yaml").unlink()


def no_certificate(folder: Path) -> None:
    (folder / "certificate.json").unlink()


def bad_model(folder: Path) -> None:
    (folder / "primary.onnx").write_bytes(b"no model")


def other_model(folder: Path) -> None:
    (folder / "primary.onnx").write_bytes((folder / "fallback.onnx").read_bytes())


def damaged_queue(folder: Path) -> None:
    (folder / "var").mkdir()
    (folder / "var" / "review.db").write_bytes(b"no database at all" * 100)


def var_is_a_file(folder: Path) -> None:
    (folder / "var").write_text("")


BREAKING: Mapping[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (
        unreadable,
        no_yaml,
        no_policy,
        no_certificate,
        bad_model,
        other_model,
        damaged_queue,
        var_is_a_file,
    )
}
"""Ways to break a deployment, by name."""
