"""Messages for gRPC, and calls with them."""

from __future__ import annotations

from typing import Any

from bench.same_answers.exchange import GrpcExchange
from bench.same_answers.grpc_wire import SERVICE
from bench.same_answers.sampled_deployment import InputRows, SampledDeployment
from fallbacks.oip import open_inference_pb2 as pb

ADA = (("authorization", "Bearer <<key:ada>>"),)
INFER = f"{SERVICE}ModelInfer"


def parameter(value: Any) -> Any:
    """A parameter that holds a value in the member of its type."""
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return pb.InferParameter(**{kinds[type(value)]: value})


def message(deployment: SampledDeployment, rows: InputRows, *, raw: bool = True, **members: Any) -> Any:
    """A ModelInferRequest with these rows."""
    held = pb.ModelInferRequest(model_name=deployment.name, **members)
    entry = held.inputs.add(name=deployment.input, datatype="FP32", shape=rows.shape)
    if raw:
        held.raw_input_contents.append(rows.astype("<f4").tobytes())
    else:
        entry.contents.fp32_contents.extend(float(value) for value in rows.ravel())
    return held


def with_options(held: Any, outputs: tuple[str, ...] = (), best: int = 0, **parameters: Any) -> Any:
    """The message with outputs and parameters."""
    for name in outputs:
        output = held.outputs.add(name=name)
        if best:
            output.parameters["classification"].CopyFrom(parameter(best))
    for name, value in parameters.items():
        held.parameters[name].CopyFrom(parameter(value))
    return held


def infer_exchange(
    name: str, held: Any, metadata: tuple[tuple[str, str], ...] = ADA, **more: Any
) -> GrpcExchange:
    """A call for inference."""
    content = held if isinstance(held, bytes) else held.SerializeToString(deterministic=True)
    return GrpcExchange(f"gRPC {name}", INFER, content, metadata, **more)
