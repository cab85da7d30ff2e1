"""A page as a parser reads it, and what holds of every report."""

from __future__ import annotations

import re
from html.parser import HTMLParser

ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "nav"),
    *("h1", "h2", "h3", "p", "a", "b", "i", "code", "sup", "span", "div", "ul", "li", "dl", "dt", "dd"),
    *("table", "thead", "tbody", "tr", "th", "td", "img", "figure", "figcaption"),
    *("svg", "desc", "text", "line", "rect", "polyline", "circle", "path"),
}
VOID = {"meta", "img"}
PICTURE = "data:image/png;base64,"


class Page(HTMLParser):
    """The elements and attributes of a page. Fails where an element is closed that is not open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def check(html: str) -> Page:
    """Asserts that a report is whole, loads nothing, runs nothing, and holds no NaN."""
    page = Page(html)
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("style", "srcset") for name in attributes), tag
        assert (attributes.get("src") or PICTURE).startswith(PICTURE)
        assert (attributes.get("href") or "#").startswith("#")
        assert not re.search(
            r"\b(nan|inf)\b", " ".join(v for v in attributes.values() if v and len(v) < 9999)
        )
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|expression", style[1])
    assert not re.search(r"\b(nan|inf|None|undefined)\b", page.text)
    html.encode()
    return page
