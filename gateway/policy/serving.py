"""The policy's `serving` block: which callers are let in, and how much one replica takes."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from gateway.policy.fields import Strict

HOST = r"^(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)$"
"""A name without a port, one for all names below another, or `*`."""
ORIGIN = r"^(\*|https?://[A-Za-z0-9_.\[\]:-]+)$"
"""Scheme and host, with a port that is not the scheme's own; or `*`."""
PublicKey: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""An Ed25519 public key: base64 of its 32 bytes."""


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
    """Open connections over HTTP, and as many again over gRPC, of which one address may have three quarters;
    fewer where the limit of open files is too low, which the log says. At a limit a connection without a
    request under way gives way. Read at start only: a change needs a restart."""
    max_connections_per_caller: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Open HTTP connections of one caller; not counted behind `trusted_proxies`, whose connections are
    shared. Read at start only: a change needs a restart."""
    max_in_flight: Annotated[int, Field(ge=1)] = 4096
    """Requests under way at the same time over both protocols, those that wait for a reviewer's answer
    included. At the limit a request is refused as `unavailable`."""
    max_in_flight_per_caller: Annotated[int, Field(ge=1)] = 256
    """The same for one caller. At the limit the caller's request is refused as `rate_limited`."""
    max_audit_bytes: Annotated[int, Field(ge=2**28)] = 4 * 2**30
    """Of the audit log in the folder for state, over all replicas and starts. Beyond, its oldest files are
    deleted: copy them elsewhere if they must be kept for longer."""
    drain_s: Annotated[float, Field(ge=0, le=600)] = 2.0
    """Seconds between SIGTERM and the end of accepting: the replica says that it is not ready, and answers.
    Give as long as a load balancer takes to notice. Ctrl-C without Ray skips it."""
    controller_lease_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds that a replica under Ray answers without hearing from Serve's controller, which can replace it
    and end it. After that it refuses every row as `stopped` and is not ready, until the controller answers
    again. The controller is asked four times in that time, or once a second. 0: for ever, as with `--local`,
    where there is no controller."""
    reload: Literal["on_change", "on_request"] = "on_request"
    """When the folder is read again while it serves. `on_request`: when an operator or Ray asks for it.
    `on_change`: also a second after its files were last written. What cannot be loaded changes nothing."""
    release_grid_ms: Annotated[int, Field(ge=0, le=1000)] = 0
    """Milliseconds between the times at which a request may be answered, from its arrival: requests whose
    work ends within the same step take equally long, so that a caller's clock does not tell which guard
    worked on a row. A request's times are shifted by up to a tenth of a step, fixed by its inputs. Answers
    come up to a step later, but for keys with the scope `explain`. A step should be longer than most rows
    take: `python -m bench.side_channels`. 0: answers leave at once."""
    base_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """A prefix that URLs may have before `/v2`, such as `/team/a`; URLs without it work as well. A change
    needs a restart."""
    anonymous: Literal["loopback", "nobody"] = "nobody"
    """Which callers without a key are let in: those that connect from this machine (`loopback`) or none
    (`nobody`). A request that came through a proxy, by its headers, needs a key in either case. Each address
    is a caller of its own, with the disclosure tier `anonymous` and the scope `infer`."""
    trusted_proxies: list[str] = []
    """Proxies whose `X-Forwarded-For` is believed: addresses, networks (`10.0.0.0/8`) and `localhost`, or
    only `*` for every peer. A client's address is the rightmost one that is no trusted proxy. All addresses
    or `*` cannot be combined with `anonymous: loopback`. A change needs a restart."""
    hosts: list[Annotated[str, Field(pattern=HOST)]] = []
    """Names that requests may give as `Host`, at the data plane and the administration: `models.example.org`,
    `*.example.org` for every name below one, or `*` for any. A request for another host is refused
    (`misdirected`). Always taken: the host that is listened on, the names in the certificate of `tls`, IP
    addresses, and on loopback `localhost`. A change needs a restart."""
    cors: list[Annotated[str, Field(pattern=ORIGIN)]] = []
    """Web pages that may call the data plane from a browser, by origin: `https://app.example.org`, or `*` for
    all. A request that a browser sends for a page of another site is refused (`forbidden`), at the
    administration always. A change needs a restart."""
    person_header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")] | None = None
    """The header in which `trusted_proxies` name the person who signed in with them, such as
    `X-Forwarded-Email` of an OIDC proxy; the administration then signs in the person of that `--identity`.
    The proxy must replace what clients send there. A change needs a restart."""
    require_signature: PublicKey | None = None
    """The Ed25519 public key whose signature the certificate must have, as `gateway sign` prints it: base64
    of 32 bytes. Anything else is refused at start and reload. An editor of this file can remove it: `gateway
    serve --require-signature` requires a signature from outside the folder. A change needs a restart."""
    tls: TlsFiles | None = None
    """The certificate and key of both data ports, TLS 1.2 and later; without it they speak plain text. Read
    at start only: a renewed certificate needs a restart."""
