"""No module depends on the private names of a third-party package, which may change in any release."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "guards", "fallbacks", "bench", "configs", "tests")
OURS = frozenset(PACKAGES)

EXCEPTIONS: dict[tuple[str, str], str] = {
    (
        "fallbacks/oip/open_inference_pb2.py",
        "google.protobuf.descriptor._USE_C_DESCRIPTORS",
    ): "written by protoc, which ships with that package",
    **dict.fromkeys(
        (
            ("gateway/app.py", "ray._private.node.Node"),
            ("gateway/app.py", "ray._private.node.Node.start_api_server"),
        ),
        "Ray's dashboard asks cloud providers' metadata services, and has no setting against it;"
        " tests/test_no_telemetry.py finds out if the name is gone",
    ),
    **dict.fromkeys(
        (
            ("gateway/app.py", "ray.serve._private.replica"),
            ("gateway/app.py", "ray.serve._private.replica.add_port_to_grpc_server"),
        ),
        "Serve binds a port of every replica to all interfaces, and has no setting for it;"
        " tests/test_ray.py finds out if the name is gone",
    ),
}
"""(file, private name): why there is no public way."""


def private_names(tree: ast.Module) -> Iterator[str]:
    """Private names of third-party packages that a module imports, or reads of a module that it imports."""
    modules: dict[str, str] = {}  # local name -> third-party module
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if third_party(alias.name):
                    modules[alias.asname or alias.name.partition(".")[0]] = alias.name
                    yield from private(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and third_party(node.module or ""):
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield from private(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (path := dotted(node)):
            first, _, rest = path.partition(".")
            if first in modules:
                yield from private(f"{modules[first]}.{rest}")


def third_party(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in OURS and top not in sys.stdlib_module_names


def private(path: str) -> Iterator[str]:
    """The path, if one of its parts is private."""
    if any(part.startswith("_") and not part.endswith("__") for part in path.split(".")):
        yield path


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text; empty where it does not begin with a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def sources() -> list[Path]:
    found = [
        path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "var" not in path.parts
    ]
    assert len(found) > 100
    return found


def test_no_module_uses_a_private_name_of_a_third_party_package() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in sources()
        for name in private_names(ast.parse(path.read_text()))
    }
    assert found == EXCEPTIONS.keys(), "a private name without a reason, or a reason without its private name"
    assert all(EXCEPTIONS.values())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (
            "from opentelemetry.sdk.metrics._internal.aggregation import X",
            "opentelemetry.sdk.metrics._internal.aggregation.X",
        ),
        ("from opentelemetry.sdk.metrics import _Gauge", "opentelemetry.sdk.metrics._Gauge"),
        ("import numpy._core as core", "numpy._core"),
        ("import httpx\nhttpx._client.X", "httpx._client"),
        ("from opentelemetry import sdk\nsdk._logs", "opentelemetry.sdk._logs"),
    ],
)
def test_a_private_name_is_found_however_it_is_reached(source: str, name: str) -> None:
    assert name in set(private_names(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    ["import os\nos._exit(0)", "from gateway.core import _x", "import numpy\nnumpy.__version__", "a = b._c"],
)
def test_the_standard_library_our_own_packages_and_dunder_names_are_no_matter(source: str) -> None:
    assert not set(private_names(ast.parse(source)))
