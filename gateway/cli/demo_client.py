"""A caller of one running deployment, and its operator and reviewer, for the demo."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, assert_never

import httpx

from gateway.access.tls import Tls
from gateway.cli.infer_body import infer_body
from gateway.core.decision import Tensors
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract
from gateway.protocol.targets import Classes, NoForm, Number, Target
from gateway.replica import ListenAddress

Ending: TypeAlias = tuple[str, str, str]
"""Outcome, reason, and which rung or person answered."""
NO_REPLY = "no reply"
SLACK_S = 10.0
"""How much longer than the deployment's deadline a reply may take."""


class Client:
    """Of one deployment. Requests are binary, which can hold any row; replies too."""

    def __init__(
        self,
        address: ListenAddress,
        policy: Policy,
        contract: Contract,
        key: str,
        token: str,
        tls: Tls | None,
    ) -> None:
        origin = address.url(secure=tls is not None)
        self.url = f"{origin}/v2/models/{policy.name}"
        self.admin_url = address.admin_url(secure=tls is not None)
        self._inputs, self._key = contract.inputs, key
        trusted = True if tls is None else _ssl_context(tls)
        timeout_s = policy.deadline_s + SLACK_S
        self._http = httpx.Client(base_url=origin, timeout=timeout_s, verify=trusted)
        bearer = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._admin = httpx.Client(base_url=self.admin_url, headers=bearer, timeout=timeout_s)

    def close(self) -> None:
        """Ends its connections."""
        self._http.close()
        self._admin.close()

    def ask(self, row: Tensors, key: str | None = None) -> tuple[Ending, str]:
        """How one row ended, and where its answer will be if a person decides it, else empty."""
        body, head = infer_body(self._inputs, row, {"parameters": {"binary_data_output": True}}, binary=True)
        headers = {"x-api-key": key or self._key, "content-type": "application/octet-stream"}
        headers["inference-header-content-length"] = str(head)
        try:
            reply = self._http.post(f"{self.url}/infer", content=body, headers=headers)
        except httpx.HTTPError as error:
            return (NO_REPLY, type(error).__name__, "none"), ""
        ending = _ending(reply)
        return ending, reply.json()["review_url"] if ending[0] == "deferred" else ""

    def reviewed(self, review_url: str) -> Ending:
        """How a row ended that a person has decided; as its caller learns it."""
        reply = self._http.get(review_url, headers={"x-api-key": self._key}).json()
        found = reply.get("answer", reply).get("parameters", {})
        return tuple(str(found.get(f"fs_{part}", "none")) for part in ("outcome", "reason", "served_by"))  # type: ignore[return-value]

    def room_for_cases(self, quota: int) -> bool:
        """Whether the review queue takes another case of a caller who may have so many."""
        return int(self._get("/review")["waiting"]) < quota

    def answer(self, review_url: str, target: Target) -> None:
        """Claims cases until the one that the row is in, answers it, and releases the others."""
        case_id = self._get(f"/review/{review_url.rsplit('/', 1)[-1]}")["id"]
        others: list[dict[str, Any]] = []
        while case := self._post("/review/claim", None):
            if case["id"] == case_id:
                self._post(f"/review/{case_id}/answer", {"fence": case["fence"]} | an_answer(target))
                break
            others.append(case)
        for case in others:
            self._post(f"/review/{case['id']}/release", {"fence": case["fence"]})

    @contextmanager
    def isolated(self, rungs: Sequence[str]) -> Iterator[None]:
        """Takes models out of service, and puts them back."""
        try:
            for name in rungs:
                self._post(f"/rungs/{name}/isolate", None)
            yield
        finally:
            for name in rungs:
                self._post(f"/rungs/{name}/restore", None)

    def _get(self, path: str) -> dict[str, Any]:
        body: dict[str, Any] = self._admin.get(path).raise_for_status().json()
        return body

    def _post(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """The reply's document, empty if it has none. Raises httpx.HTTPError."""
        reply = self._admin.post(path, json=body).raise_for_status()
        return dict(reply.json()) if reply.content else {}


def an_answer(target: Target) -> dict[str, Any]:
    """What a reviewer may answer: the first class, the middle of the range, or that it is unsure."""
    match target:
        case Classes():
            return {"label": 0}
        case Number(low, high):
            middle = low / 2 + high / 2
            return {"value": round(middle) if low <= round(middle) <= high else middle}
        case NoForm():
            return {"unsure": True}
        case _:
            assert_never(target)


def _ending(reply: httpx.Response) -> Ending:
    default = f"HTTP {reply.status_code}"
    outcome, reason, served_by = (
        reply.headers.get(f"x-failsafe-{name}", default) for name in ("outcome", "reason", "served-by")
    )
    return outcome, reason, served_by


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    """For a client that trusts this certificate, regardless of its issuer and of the name it is for."""
    context = ssl.create_default_context(cadata=tls.certificate.decode("ascii", "ignore"))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
