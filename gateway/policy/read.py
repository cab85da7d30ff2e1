"""`gateway.yaml` read once: its values as a policy, and its nodes, which know their lines."""

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
    root, held = _read(path)
    try:
        policy = Policy.model_validate(held)
    except ValidationError as error:
        raise PolicyError(
            [explain(e, path, root, Policy) for e in error.errors(include_url=False)]
        ) from error
    crossed = [Problem(dotted(at), what, str(path), line_of(root, at)) for at, what in contradictions(policy)]
    if crossed:
        raise PolicyError(crossed)
    return policy, root


def _read(path: Path) -> tuple[yaml.Node | None, Any]:
    """The file as nodes, which know their lines, and as values. Aliases can unfold for ever: refused."""
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise PolicyError([Problem("", "aliases are not taken", str(path), line)])
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        held = yaml.safe_load(text)
    except OSError as error:
        raise PolicyError([Problem("", f"cannot be read: {error.strerror}", str(path))]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        what = f"is not YAML: {getattr(error, 'problem', None) or error}"
        raise PolicyError([Problem("", what, str(path), line)]) from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:  # a date that is none, say
        raise PolicyError(
            [Problem("", f"holds a value that YAML cannot make: {error}", str(path), 1)]
        ) from error
    if twice := [Problem(key, "appears twice", str(path), line) for key, line in duplicates(root)]:
        raise PolicyError(twice)
    return root, held
