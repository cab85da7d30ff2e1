"""Reads `gateway.yaml` once: its values as a policy, and its nodes, which have line numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gateway.core.errors import PolicyError, Problem
from gateway.policy.locate import dotted, duplicates, explain, line_of
from gateway.policy.schema import Policy, contradictions

POLICY_FILE = "gateway.yaml"


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


def _read(path: Path) -> tuple[yaml.Node | None, Any]:
    """The file as nodes with line numbers, and as values. Refuses aliases, which can expand without limit."""
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise PolicyError([Problem("", "aliases are not taken", str(path), line)])
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except OSError as error:
        raise PolicyError([Problem("", f"cannot be read: {error.strerror}", str(path))]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    return root, values
