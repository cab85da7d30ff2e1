"""`upstreams.json`: the identity of the models in other servers, written by calibration.

A replica starts from this file alone. A server that answers at start is compared with it at once; one that
does not is compared before its first answer is used (see `fallbacks.oip.upstream`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

import orjson

from fallbacks.oip.address import RemoteModel, UpstreamAddress
from fallbacks.oip.client import connect
from fallbacks.oip.errors import UpstreamFailed
from fallbacks.oip.run_in_thread import run_in_thread
from fallbacks.oip.stored_upstream import StoredUpstream
from fallbacks.oip.upstream import UpstreamModel
from fallbacks.predictor import LoadedModel
from fallbacks.regular_file import read_regular
from fallbacks.roles import ConvertedModel
from gateway.core.errors import ArtifactError, PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.policy.schema import OipPolicy, Policy

UPSTREAMS_FILE = "upstreams.json"
MOST_BYTES = 64 * 2**20
RECORD_TIMEOUT_S, CHECK_TIMEOUT_S = 30.0, 2.0
log = logging.getLogger(__name__)


def remote_of(model_policy: OipPolicy) -> RemoteModel:
    """The server, model and token of a rung. Raises ValueError if the variable holds no valid token."""
    token = None
    if model_policy.token_env is not None:
        token = os.environ.get(model_policy.token_env, "")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(f"the environment variable {model_policy.token_env} holds no token")
    return RemoteModel(
        UpstreamAddress.parse(model_policy.url), model_policy.model, model_policy.version, token
    )


def record_upstreams(deployment: Deployment) -> dict[str, StoredUpstream]:
    """The identity of every rung in another server, requested now. Raises PolicyError; blocks."""
    found: dict[str, StoredUpstream] = {}
    problems: list[Problem] = []
    for i, rung in enumerate(deployment.policy.rungs):
        if isinstance(rung.model, OipPolicy):
            try:
                found[rung.name] = _record(rung.model, deployment.policy)
            except (UpstreamFailed, TimeoutError, ValueError) as error:
                problems.append(deployment.problem(("rungs", i, "model"), f"cannot be calibrated: {error}"))
    if problems:
        raise PolicyError(problems)
    return found


def _record(model_policy: OipPolicy, policy: Policy) -> StoredUpstream:
    remote = remote_of(model_policy)
    ranges = {
        model_policy.names.get(name, name): (one.low, one.high)
        for name, one in policy.inputs.items()
        if one.low is not None and one.high is not None
    }

    async def ask() -> StoredUpstream:
        client = connect(remote)
        try:
            return await StoredUpstream.record(
                client, ranges, policy.serving.max_batch_rows, RECORD_TIMEOUT_S
            )
        finally:
            await client.close()

    return run_in_thread(ask)


def write_upstreams(deployment: Deployment, found: Mapping[str, StoredUpstream]) -> None:
    """Writes the file, if any rung is in another server."""
    if found:
        held = {"schema": 1, "upstreams": {name: stored.to_json() for name, stored in found.items()}}
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        (deployment.folder / UPSTREAMS_FILE).write_bytes(orjson.dumps(held, option=options))


def read_upstreams(deployment: Deployment) -> dict[str, StoredUpstream]:
    """The file by rung. Raises ArtifactError if the policy needs it and it is missing or invalid."""
    if not any(isinstance(rung.model, OipPolicy) for rung in deployment.policy.rungs):
        return {}
    path = deployment.folder / UPSTREAMS_FILE
    if not path.exists():
        raise ArtifactError([Problem("", "is missing: run `gateway calibrate`", str(path))])
    try:
        held = orjson.loads(read_regular(path, MOST_BYTES, "it is damaged"))
        if not isinstance(held, dict) or held.get("schema") != 1 or not isinstance(held["upstreams"], dict):
            raise ValueError("is not of this version")
        return {str(name): StoredUpstream.from_json(one) for name, one in held["upstreams"].items()}
    except (ValueError, KeyError) as error:
        raise ArtifactError([Problem("", f"{error}; run `gateway calibrate` again", str(path))]) from error


def check_upstreams(deployment: Deployment, models: Mapping[str, LoadedModel]) -> None:
    """Compares every upstream that answers within two seconds with its stored identity; blocks.

    Raises ArtifactError if one answers differently. One that cannot be reached is logged.
    """
    own = {
        name: model.model if isinstance(model, ConvertedModel) else model for name, model in models.items()
    }
    upstreams = {name: model for name, model in own.items() if isinstance(model, UpstreamModel)}
    if not upstreams:
        return

    async def ask() -> list[BaseException | None]:
        return await asyncio.gather(
            *(one.check(CHECK_TIMEOUT_S) for one in upstreams.values()), return_exceptions=True
        )

    results = dict(zip(upstreams, run_in_thread(ask), strict=True))
    problems: list[Problem] = []
    for i, rung in enumerate(deployment.policy.rungs):
        match results.get(rung.name):
            case None:
                pass
            case ValueError() as error:
                problems.append(deployment.problem(("rungs", i, "model"), str(error)))
            case UpstreamFailed() | TimeoutError() as error:
                log.warning(
                    "rung %s cannot be checked now, and is not asked until it can: %s", rung.name, error
                )
            case error:
                raise error
    if problems:
        raise ArtifactError(problems)
