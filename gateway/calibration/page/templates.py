"""The templates of pages that hold data which an attacker may have written, with the parts that they share.

Everything shown is escaped, a name that is missing is an error, and characters that do not print are visible.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.calibration.page import formatting

FOLDER = Path(__file__).parent


def templates_of(*folders: Path) -> Environment:
    """The templates of these folders, and those of this one."""
    environment = Environment(
        loader=FileSystemLoader([*folders, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=formatting.printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        share=formatting.share, count=formatting.count, number=formatting.number, clock=formatting.clock
    )
    return environment
