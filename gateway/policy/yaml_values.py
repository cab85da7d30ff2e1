"""What YAML makes of a value that is written otherwise than it is meant, and how to write it.

YAML 1.1 reads `No` as false, `1e-3` as text and `2024-01-01` as a date.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import yaml

LONGEST_PLAIN = 12
"""Characters that a number without an exponent may have to be proposed."""
_NUMBER_TYPES = frozenset({"float_type", "int_type"})
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")


def instead(error_type: str, got: object, node: yaml.Node | None) -> str:
    """What the file has in place of what is valid there, and how to write it if that can be told.

    Args:    error_type: pydantic's; got: the value as YAML gives it; node: where it stands, None if unknown.
    Returns: what follows the rule in a sentence, such as `, not 'x'`; empty for lists and mappings.
    """
    if isinstance(got, dict | list):
        return ""
    text: str | None = node.value if isinstance(node, yaml.ScalarNode) else None
    if text == "":
        return ", and nothing is written there" if got is None else ", not empty text"
    if text is None or (isinstance(got, str) and error_type not in _NUMBER_TYPES):
        return f", not {got!r}"
    if isinstance(got, str):
        return f", not {got!r}{_as_number(got, quoted=bool(getattr(node, 'style', None)))}"
    if error_type == "string_type":
        return f": YAML reads {text} as {_meaning(got)}; write '{text}' in quotes"
    if isinstance(got, int | float) and not isinstance(got, bool):
        return f", not {text}" + f", which YAML reads as {got}" * (":" in text)
    meaning = _meaning(got)
    return f", not {text}" + f", which YAML reads as {meaning}" * (text.lower() != meaning)


def _as_number(text: str, *, quoted: bool) -> str:
    """How to write a text that looks like a number as one; empty if it looks like none."""
    if _EXPONENT.fullmatch(text):
        mantissa, exponent = text.lower().split("e")
        written = f"{float(mantissa)}e{int(exponent):+d}"
        plain = format(Decimal(text), "f")
        return f": YAML reads it as text; write {f'{plain} or ' * (len(plain) <= LONGEST_PLAIN)}{written}"
    if _DECIMAL_COMMA.fullmatch(text):
        return f"; write {text.replace(',', '.')}"
    if quoted and isinstance(yaml.safe_load(text), int | float):
        return ": it is text in quotes; leave them out"
    return ""


def _meaning(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number"
        case date():
            return "a date"
        case _:
            return f"a {type(value).__name__}"
