"""tritonclient.http asks a gateway row by row: `python ask.py HOST:PORT MODEL KEY ROWS.npz INPUT...`.

Prints one line of JSON a row: `status` (200 or the error's), `message`, `outputs` by name. Runs in an
environment of the client's own. A float keeps its bits in JSON, as the double that stands for it alone.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def main() -> None:
    address, model, key, path, *inputs = sys.argv[1:]
    with np.load(path) as held:
        columns = {name: held[name] for name in inputs}
    client = InferenceServerClient(address, connection_timeout=30, network_timeout=30)
    names = [one["name"] for one in client.get_model_metadata(model, headers={"x-api-key": key})["outputs"]]
    for i in range(len(columns[inputs[0]])):
        given = [tensor(name, column[i : i + 1]) for name, column in columns.items()]
        sys.stdout.write(json.dumps(asked(client, model, key, given, names)) + "\n")
    client.close()


def tensor(name: str, column: np.ndarray) -> InferInput:
    values = column.astype(object) if column.dtype.kind == "U" else column
    one = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    return one.set_data_from_numpy(values)


def asked(
    client: InferenceServerClient, model: str, key: str, given: list[InferInput], names: list[str]
) -> dict[str, object]:
    try:
        result = client.infer(model, given, headers={"x-api-key": key})
    except InferenceServerException as error:
        return {"status": int(error.status()), "message": error.message(), "outputs": {}}
    arrays = {name: result.as_numpy(name) for name in names}
    return {"status": 200, "message": "", "outputs": {name: plain(array) for name, array in arrays.items()}}


def plain(array: np.ndarray) -> list[object]:
    return array.astype(bytes).astype(str).tolist() if array.dtype.kind == "O" else array.tolist()


main()
