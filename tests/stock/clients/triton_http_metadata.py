"""What tritonclient can ask over HTTP besides inference, and what the replies must contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cases import Case, Target, hold, same, settle
from triton_http_answers import asks

EXTENSIONS = {
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
}
UNKNOWN_MODEL = "unknown"


def metadata_cases(client: Any, on: Target) -> Iterator[Case]:
    """Every call that only asks, with and without a version and a key."""
    for version in ("", on.version):
        at = partial(tells, client, on, version)
        yield (
            f"is_model_ready, version {version!r}",
            partial(at, "is_model_ready", lambda ready: ready is True),
        )
        yield (
            f"get_model_metadata, version {version!r}",
            partial(at, "get_model_metadata", partial(metadata, on)),
        )
        yield f"get_model_config, version {version!r}", partial(at, "get_model_config", partial(config, on))
        yield f"get_inference_statistics, version {version!r}", partial(statistics, client, on, version)
    for call in ("is_server_live", "is_server_ready"):
        yield call, partial(tells, client, on, None, call, lambda answer: answer is True)
    yield "get_server_metadata", partial(tells, client, on, None, "get_server_metadata", server)
    yield "get_inference_statistics of all models", partial(statistics, client, on, None)
    index = partial(tells, client, on, None, "get_model_repository_index", partial(listed, on))
    yield "get_model_repository_index", index


async def tells(
    client: Any, on: Target, version: str | None, call: str, right: Callable[[Any], object]
) -> None:
    of = () if version is None else (on.model, version)
    for more in ({}, {"headers": on.auth}, {"query_params": {"a": "b"}}):
        answer = await settle(getattr(client, call)(*of, **more))
        hold(right(answer) is not False, f"{call} replied {answer!r}")


def server(reply: Any) -> None:
    hold(reply["name"] and reply["version"], "no name or version")
    same("extensions", set(reply["extensions"]), EXTENSIONS)


def metadata(on: Target, reply: Any) -> None:
    same("name", reply["name"], on.model)
    same("versions", reply["versions"], [on.version])
    hold(reply["platform"], "no platform")
    sizes = (list(on.rows.shape[1:]), list(on.expected.shape[1:]))
    for tensor, name, size in zip(
        (*reply["inputs"], *reply["outputs"]), (on.input, on.output), sizes, strict=True
    ):
        same("tensor", (tensor["name"], tensor["datatype"], tensor["shape"]), (name, "FP32", [-1, *size]))


def config(on: Target, reply: Any) -> None:
    same("name and rows", (reply["name"], reply["max_batch_size"]), (on.model, on.most))
    sizes = (list(on.rows.shape[1:]), list(on.expected.shape[1:]))
    for tensor, name, size in zip(
        (*reply["input"], *reply["output"]), (on.input, on.output), sizes, strict=True
    ):
        same("tensor", (tensor["name"], tensor["data_type"], tensor["dims"]), (name, "TYPE_FP32", size))


def listed(on: Target, reply: Any) -> None:
    seen = [(one["name"], one["version"], one["state"]) for one in reply]
    hold((on.model, on.version, "READY") in seen, f"the index is {reply}")


async def statistics(client: Any, on: Target, version: str | None) -> None:
    """Counts grow by the rows of a request, and by one success."""
    of = () if version is None else (on.model, version)

    async def counts() -> tuple[int, int]:
        reply = await settle(client.get_inference_statistics(*of, headers=on.auth))
        [one] = [one for one in reply["model_stats"] if one["name"] == on.model]
        same("version", one["version"], on.version)
        hold(one["execution_count"] > 0 and one["last_inference"] > 0, f"replied {one}")
        return int(one["inference_count"]), int(one["inference_stats"]["success"]["count"])

    await asks(client, on, sent="binary", wanted="binary", rows=1)
    rows, requests = await counts()
    await asks(client, on, sent="binary", wanted="binary", rows=32)
    same("rows and requests", await counts(), (rows + 32, requests + 1))
