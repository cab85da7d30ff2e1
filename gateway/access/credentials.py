"""The caller's key in the headers of a request, HTTP's and gRPC's alike.

A request without either header has no credential: it may be anonymous. A header that is there and holds no
key is an error, as are two keys that differ, so that a client whose secret was not filled in is told so.
"""

from __future__ import annotations

from gateway.caching import BoundedCache

AUTHORIZATION, API_KEY = "authorization", "x-api-key"
CACHED, LONGEST_CACHED = 512, 256
"""So many headers are kept parsed, each of at most so many characters."""


class InvalidCredential(ValueError):
    """A credential that no key can be. Its text says what is wrong, and repeats nothing of it."""


def sent_key(authorization: str | None, api_key: str | None) -> str | None:
    """The key of a request; None if it has neither header.

    Args:    the values of both headers; repeated ones joined with commas.
    Raises:  InvalidCredential.
    Cost:    0.1 us.
    """
    if authorization is None:
        return None if api_key is None else _API_KEYS[api_key]
    key = _TOKENS[authorization]
    if api_key is not None and _API_KEYS[api_key] != key:
        raise InvalidCredential(f"{AUTHORIZATION} and {API_KEY} have different keys: send one of them")
    return key


def _token(authorization: str) -> str:
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidCredential(f"{AUTHORIZATION} must be `Bearer KEY`, without another scheme")
    return _one_key(token, f"{AUTHORIZATION} has no key after `Bearer`", AUTHORIZATION)


def _api_key(value: str) -> str:
    return _one_key(value, f"{API_KEY} is empty", API_KEY)


def _one_key(text: str, if_empty: str, header: str) -> str:
    key = text.strip()
    if not key:
        raise InvalidCredential(f"{if_empty}: send a key, or leave the header out")
    if "," in key or len(key.split()) > 1:
        raise InvalidCredential(f"{header} has more than one key: send it once, with one key")
    return key


_TOKENS = BoundedCache(_token, entries=CACHED, longest=LONGEST_CACHED)
_API_KEYS = BoundedCache(_api_key, entries=CACHED, longest=LONGEST_CACHED)
