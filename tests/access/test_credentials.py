"""What is wrong with a credential is said, and a wrong one is never no credential."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.credentials import InvalidCredential, sent_key

SENT = st.none() | st.text(max_size=12) | st.sampled_from(["Bearer k", "bearer k", "Basic k", "k", "Bearer"])


@pytest.mark.parametrize(
    ("authorization", "api_key", "key"),
    [
        (None, None, None),
        ("Bearer k", None, "k"),
        ("bearer  k ", None, "k"),
        (" BEARER k", None, "k"),
        (None, " k ", "k"),
        ("Bearer k", "k", "k"),
    ],
)
def test_a_key_is_found_in_either_header(
    authorization: str | None, api_key: str | None, key: str | None
) -> None:
    assert sent_key(authorization, api_key) == key


@pytest.mark.parametrize(
    ("authorization", "api_key", "what"),
    [
        ("", None, "must be `Bearer KEY`"),
        ("Bearer", None, "no key after `Bearer`"),
        ("Bearer ", None, "no key after `Bearer`"),
        ("Bearer\tk", None, "must be `Bearer KEY`"),
        ("Basic dXNlcjpwYXNz", None, "must be `Bearer KEY`"),
        ("k", None, "must be `Bearer KEY`"),
        ("Bearer k, Bearer k", None, "more than one key"),
        ("Bearer k k", None, "more than one key"),
        (None, "", "x-api-key is empty"),
        (None, "  ", "x-api-key is empty"),
        (None, "k, k", "more than one key"),
        (None, ", ", "more than one key"),
        ("Bearer k", "other", "different keys"),
        ("Bearer k", "", "x-api-key is empty"),
        ("", "k", "must be `Bearer KEY`"),
        ("Basic dXNlcjpwYXNz", "k", "must be `Bearer KEY`"),
    ],
)
def test_a_credential_that_is_no_key_is_refused_with_what_is_wrong(
    authorization: str | None, api_key: str | None, what: str
) -> None:
    for _ in range(2):
        with pytest.raises(InvalidCredential, match=what):
            sent_key(authorization, api_key)


@given(SENT, SENT)
def test_only_without_both_headers_there_is_no_credential(
    authorization: str | None, api_key: str | None
) -> None:
    try:
        key = sent_key(authorization, api_key)
    except InvalidCredential:
        return
    assert (key is None) == (authorization is None and api_key is None)
    assert key is None or key.strip() == key != ""
