"""The priority that a body seems to have, for requests that may have to be refused before they are parsed."""

from __future__ import annotations

import re

HIGHEST = 1
_PRIORITY = re.compile(rb'priority(?:"\s*:\s*([1-9])|\x12\x02[\x10\x28]([\x01-\x09]))')
"""The parameter in JSON, and as an int64 or uint64 in protobuf: an entry of a map, with a key and a value."""


def apparent_priority(body: bytes) -> int:
    """The first number that looks like the parameter `priority`, from 1; the highest where none does.

    Cost:    1 us, and 0.1 ms for each megabyte.
    """
    found = _PRIORITY.search(body)
    if found is None:
        return HIGHEST
    text, number = found.groups()
    return int(text) if number is None else number[0]
