"""Reads `gateway.yaml` once: its values as a policy, and its nodes, which have line numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gateway.core.errors import PolicyError, Problem
from gateway.policy.contradictions import contradictions
from gateway.policy.locate import dotted, duplicates, explain, line_of
from gateway.policy.schema import Policy

POLICY_FILE = "gateway.yaml"
MOST_BYTES = 2**20
MOST_NESTED = 64


def read_policy(folder: Path) -> tuple[Policy, yaml.Node | None]:
    """The policy of a folder, and the file's nodes. Raises PolicyError with every problem found."""
    path = folder / POLICY_FILE
    root, values = _read(path)
    try:
        policy = Policy.model_validate(values)
    except ValidationError as error:
        raise PolicyError(
            [explain(e, path, root, Policy) for e in error.errors(include_url=False)]
        ) from error
    conflicts = [
        Problem(dotted(at), what, str(path), line_of(root, at)) for at, what in contradictions(policy)
    ]
    if conflicts:
        raise PolicyError(conflicts)
    return policy, root


def _read(path: Path) -> tuple[yaml.Node | None, dict[Any, Any]]:
    """The file as nodes with line numbers, and as values. Refuses aliases, which can expand without limit."""
    text = _text(path)
    try:
        _refuse_endless(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"is not YAML: the character #x{ord(text[error.position]):04x} is not allowed"
        raise PolicyError([Problem("", what, str(path), line)]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        what = f"is not YAML: {getattr(error, 'problem', None) or error}"
        raise PolicyError([Problem("", what, str(path), line)]) from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:  # an invalid date, for example
        raise PolicyError(
            [Problem("", f"holds a value that YAML cannot make: {error}", str(path), 1)]
        ) from error
    if repeated := [Problem(key, "appears twice", str(path), line) for key, line in duplicates(root)]:
        raise PolicyError(repeated)
    if not isinstance(values, dict):
        held = (
            "is empty"
            if values is None
            else "holds a list"
            if isinstance(values, list)
            else "holds no fields"
        )
        what = f"the file {held}; a policy is fields such as `schema: 1`, one a line"
        raise PolicyError([Problem("", what, str(path), 1)])
    return root, values


def _refuse_endless(path: Path, text: str) -> None:
    """Raises PolicyError for aliases, and for nesting whose reading would take quadratic time; YAMLError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise PolicyError([Problem("", "aliases are not taken", str(path), line)])
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_NESTED:
            what = f"nests lists or fields deeper than {MOST_NESTED}; a policy needs about eight"
            raise PolicyError([Problem("", what, str(path), line)])


def _text(path: Path) -> str:
    """The content of a file. Raises PolicyError where it cannot be read, and names the line of a bad byte."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise PolicyError([Problem("", "is no regular file; a policy is a file of YAML", str(path))])
        if (size := path.stat().st_size) > MOST_BYTES:
            what = f"has {size} bytes, over the {MOST_BYTES} that a policy may have"
            raise PolicyError([Problem("", what, str(path))])
        content = path.read_bytes()
    except NotADirectoryError as error:
        problem = Problem("", "is a file; a deployment is a folder with a gateway.yaml", str(path.parent))
        raise PolicyError([problem]) from error
    except OSError as error:
        raise PolicyError([Problem("", f"cannot be read: {error.strerror}", str(path))]) from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"is not YAML: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise PolicyError([Problem("", what, str(path), line)]) from error
