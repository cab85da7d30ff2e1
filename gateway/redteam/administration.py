"""The gateway's own record of alarms, read through its administration with a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from gateway.core.errors import Problem, Problems

TIMEOUT_S: Final = 10.0
OPTION, TOKEN_OPTION = "--admin", "--admin-token"
MEND: Final = "give a viewer's token: `gateway admin add NAME --role viewer`, or that of GATEWAY_ADMIN_TOKEN"


class NotRead(Problems):
    """The administration does not answer, or not as it should; says what to mend."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Of one principal. rows: that were looked up; alarm_row: after how many of them its suspect's evidence
    first had reached the lowest cut, None if it never has.
    """

    rows: int
    alarm_row: int | None


class Administration:
    """One deployment's. No redirects and no proxies of the environment: the token goes to this host alone."""

    def __init__(self, url: httpx.URL, token: str, model: str) -> None:
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._client = httpx.Client(
            base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False, follow_redirects=False
        )
        self._model = model

    def close(self) -> None:
        """Ends its connection."""
        self._client.close()

    def principal_of(self, decision: str) -> str:
        """Whose request that was. Raises NotRead."""
        rows = self._read(f"/decisions/{quote(decision, safe='')}", "rows")
        return str(rows[0]["principal"])

    def recorded(self) -> dict[str, Recorded] | None:
        """By principal, of the suspects that are listed; None without a guard that keeps evidence.

        Of several such guards, what each principal did first. Raises NotRead.
        """
        guards: Mapping[str, Any] = self._read(f"/models/{quote(self._model)}/callers", "suspects")
        if not guards:
            return None
        found: dict[str, Recorded] = {}
        for suspect in (one for suspects in guards.values() for one in suspects):
            for member in suspect["members"]:
                name, alarm = str(member["principal"]), member["alarm_row"]
                before = found.get(name, Recorded(0, None)).alarm_row
                first = min((row for row in (before, alarm) if row is not None), default=None)
                found[name] = Recorded(int(member["rows"]), first)
        return found

    def _read(self, path: str, member: str) -> Any:
        where = f"{self._client.base_url}{path.lstrip('/')}"
        try:
            reply = self._client.get(path)
        except httpx.HTTPError as error:
            what = (
                f"{where} cannot be reached: {error or type(error).__name__}; give the administration's URL"
            )
            raise NotRead([Problem(OPTION, what)]) from error
        if reply.status_code in (401, 403):
            raise NotRead([Problem(TOKEN_OPTION, f"{where} answers {reply.status_code}; {MEND}")])
        try:
            found = reply.json()[member]
        except (ValueError, KeyError, TypeError) as error:
            what = f"{where} answers {reply.status_code}, and not as an administration does; give its URL"
            raise NotRead([Problem(OPTION, what)]) from error
        return found
