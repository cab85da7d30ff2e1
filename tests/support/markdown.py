"""The repository's Markdown files, their headings, links, fences and tables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = frozenset({"var", "build", "dist"})
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Fence(NamedTuple):
    """One fenced block: its page, its info string (the language first) and its text."""

    page: str
    language: str
    text: str


def pages() -> list[str]:
    """Every Markdown file of the repository, relative to its root."""
    found = []
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = [one for one in subfolders if one[0] != "." and one not in SKIPPED]
        found += [Path(folder, file).relative_to(ROOT) for file in files if file.endswith(".md")]
    return sorted(map(str, found))


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", text_of(page))


def fences(page: str, language: str) -> list[Fence]:
    """The fenced blocks of one language."""
    found = [Fence(page, info.split(" ")[0], text) for info, text in _FENCE.findall(text_of(page))]
    return [fence for fence in found if fence.language == language]


def anchors(page: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links(page: str) -> Iterator[str]:
    """The targets of a page's links."""
    yield from re.findall(r"\]\(([^)\s]+)\)", prose_of(page))


def table(page: str, first_column: str) -> list[list[str]]:
    """The cells of each row of the tables whose first column has this header."""
    rows: list[list[str]] = []
    inside = False
    for line in prose_of(page).splitlines():
        if inside and line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("| ").split("|")])
        else:
            inside = line.startswith(f"| {first_column} |")
    rows = [row for row in rows if set(row[0]) != {"-"}]
    assert rows, f"{page} has no table whose first column is {first_column!r}"
    return rows
