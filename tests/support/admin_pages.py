"""Pages of the administration as a browser reads them, held to run and leak nothing."""

from __future__ import annotations

import html.parser

import httpx


class Page(html.parser.HTMLParser):
    """What a browser would make of a page, with whatever could run or leak in it."""

    def __init__(self, reply: httpx.Response) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(reply.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def fields(self, action: str) -> dict[str, str]:
        """The hidden fields of the form that posts to `action`."""
        inside, found = False, {}
        for tag, attrs in self.tags:
            inside = attrs.get("action") == action if tag == "form" else inside
            if inside and tag == "input" and attrs.get("type") == "hidden":
                found[attrs["name"] or ""] = attrs["value"] or ""
        return found

    def assert_harmless(self) -> None:
        """No script but the static one, no inline style or handler, nothing from another host."""
        assert self.all("script") == [{"src": "/pages/keys.js", "defer": None}]
        assert not self.all("style") and not self.all("iframe")
        for tag, attrs in self.tags:
            for name, value in attrs.items():
                assert not name.startswith("on") and name != "style", (tag, name)
                if name in ("src", "href", "action", "formaction"):
                    assert value and value.startswith("/") and not value.startswith("//"), (tag, value)
