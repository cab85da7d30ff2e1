"""The policy's `serving` block: which callers are let in, and how much one replica takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.policy.fields import Strict


class TlsFiles(Strict):
    """The two PEM files of TLS."""

    certificate: Annotated[str, Field(min_length=1)]
    """The certificate, followed by its chain if it has one: a PEM file, relative to the deployment folder."""
    key: Annotated[str, Field(min_length=1)]
    """The certificate's private key without a password: a PEM file, relative to the deployment folder."""


class Serving(Strict):
    """Which callers are let in, and how much one replica takes: each limit is for one replica."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that serve under Ray, each with the limits of this block. `--replicas` overrides it;
    `--local` serves one. A change needs a restart."""
    max_batch_rows: Annotated[int, Field(ge=1, le=1024)] = 128
    """Rows that one request may have, and rows of several requests that are decided together. A request with
    more is invalid (400). Must not exceed what upstream servers take."""
    withheld_rows: Literal["refuse_request", "mark"] = "refuse_request"
    """What a request gets of which some rows are answered and some withheld. `refuse_request`: the end of its
    worst row and no outputs, unless it asks for `fs_row_outcome`. `mark`: 200 (OK) with the withheld rows
    blank (NaN, the type's minimum, empty; `null` in JSON), and how each row ended in `fs_row_outcomes`. For
    deployments whose every client reads that parameter: a blank row is no answer. A request whose every row
    is withheld ends as its worst row in either case."""
    model_memory_mib: Annotated[int, Field(ge=64, le=1_048_576)] = 2048
    """Mebibytes that opening one model and running its largest batch may take, besides six times its file.
    Each model is tried apart at this limit before it is loaded, and refused beyond it."""
    max_queued_rows: Annotated[int, Field(ge=1)] = 4096
    """Rows that may wait for a batch or for the review queue's disk. At the limit a request is refused as
    `unavailable` at once, to be sent again after a second."""
    max_connections: Annotated[int, Field(ge=1, le=65_536)] = 2048
    """Open connections over HTTP, and as many again over gRPC; fewer where the limit of open files is too
    low, which the log says. At the limit the HTTP connection that has been idle longest gives way. Read at
    start only: a change needs a restart."""
    max_connections_per_caller: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Open HTTP connections of one caller; not counted behind `trusted_proxies`, whose connections are
    shared. Read at start only: a change needs a restart."""
    max_in_flight: Annotated[int, Field(ge=1)] = 4096
    """Requests under way at the same time over both protocols, those that wait for a reviewer's answer
    included. At the limit a request is refused as `unavailable`."""
    max_in_flight_per_caller: Annotated[int, Field(ge=1)] = 256
    """The same for one caller. At the limit the caller's request is refused as `rate_limited`."""
    base_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """A prefix that URLs may have before `/v2`, such as `/team/a`; URLs without it work as well. A change
    needs a restart."""
    anonymous: Literal["loopback", "nobody"] = "nobody"
    """Which callers without a key are let in: those from loopback addresses (`loopback`) or none (`nobody`).
    Each address is a caller of its own, with the disclosure tier `anonymous` and the scope `infer`."""
    trusted_proxies: list[str] = []
    """Proxies whose `X-Forwarded-For` is believed: addresses, networks (`10.0.0.0/8`) and names, or only `*`
    for every peer. A caller's address is the rightmost one that is no trusted proxy. A change needs a
    restart."""
    tls: TlsFiles | None = None
    """The certificate and key of both data ports, TLS 1.2 and later; without it they speak plain text. Read
    at start only: a renewed certificate needs a restart."""
