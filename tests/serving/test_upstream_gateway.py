"""A gateway whose first rung is another gateway: binary tensors, and the time that is left."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from fallbacks.oip.address import RemoteModel, UpstreamAddress
from fallbacks.oip.client import connect
from fallbacks.oip.errors import UpstreamFailed
from fallbacks.onnx import OnnxModel
from gateway.calibration.calibrate import calibrate
from gateway.core.decision import Served
from gateway.deployment.deployment import Deployment
from tests.support.deployments import CONFIGS, FULL_RATE, batch_of, clean_rows, edit, letters, opened, run
from tests.support.served import Served as Running
from tests.support.served import serving

LOCAL = "model: {kind: onnx, path: primary.onnx}"
ROWS = 1500


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with the primary's own answers as labels: certifying is not what is tested here."""
    x = np.random.default_rng(3).integers(0, 16, (ROWS, 16)).astype(np.float32)
    model = OnnxModel.load(CONFIGS / "letters" / "primary.onnx")
    y = model.run({"attributes": x})["probabilities"].argmax(axis=1)
    model.close()
    path: Path = tmp_path_factory.mktemp("data") / "rows.npz"
    np.savez(path, attributes=x, y=y)
    return path


def without_guards(folder: Path) -> None:
    path = folder / "gateway.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("guards:")] + "guards: []\n\n" + text[text.index("rungs:") :])


@pytest.fixture(scope="module")
def behind(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that only serves the primary of configs/letters, whole."""
    folder = letters(tmp_path_factory.mktemp("behind"), history=False)
    without_guards(folder)
    path = folder / "gateway.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("  - name: small")] + text[text.index("review:") :])
    edit(
        folder,
        ("expose: [probabilities]", "expose: [probabilities, logits, features]"),
        ("anonymous: {rounded: 2}", "anonymous: full"),
    )
    check = next(line for line in path.read_text().splitlines() if "name: confidence" in line)
    edit(folder, (f"\n    checks:\n{check}", ""))
    calibrate(Deployment.read(folder), data)
    with serving(folder, "--local") as running:
        yield running


@dataclass
class Relay:
    """Stands between the two gateways and keeps what passes."""

    port: int
    sent: bytearray = field(default_factory=bytearray)

    @property
    def heads(self) -> list[dict[str, Any]]:
        """The headers of each question to the model, and its JSON under `document`."""
        found = []
        for part in bytes(self.sent).split(b"POST /v2/models/letters/infer")[1:]:
            head, _, body = part.partition(b"\r\n\r\n")
            lines = [line.decode().lower().partition(": ") for line in head.split(b"\r\n")[1:]]
            headers: dict[str, Any] = {name: value for name, _, value in lines}
            size = int(headers["inference-header-content-length"])
            found.append({**headers, "document": orjson.loads(body[:size])})
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def there() -> None:
            while part := await reader.read(65536):
                self.sent += part
                far_writer.write(part)
            far_writer.close()

        async def back() -> None:
            while part := await far_reader.read(65536):
                writer.write(part)
            writer.close()

        await asyncio.gather(there(), back(), return_exceptions=True)


@asynccontextmanager
async def relay(to: Running) -> AsyncIterator[tuple[Relay, str]]:
    one = Relay(to.data.base_url.port or 0)
    listening = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    try:
        yield one, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await asyncio.sleep(0.05)  # what was open ends with its client


@pytest.fixture(scope="module")
def calibrated(behind: Running, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    url = f'{{kind: oip, url: "{str(behind.data.base_url).rstrip("/")}", model: letters}}'
    folder = letters(tmp_path_factory.mktemp("front"), (LOCAL, f"model: {url}"), FULL_RATE, history=False)
    (folder / "primary.onnx").unlink()
    without_guards(folder)
    lenient = [
        ("selective_error: 0.02", "selective_error: 0.4"),
        ("selective_error: 0.04", "selective_error: 0.9"),
    ]
    edit(folder, *lenient, ("answered_error: *", "answered_error: 0.9"))
    calibrate(Deployment.read(folder), data)
    return folder


def test_the_gateway_in_front_gives_exactly_what_the_one_behind_has(
    calibrated: Path, behind: Running, tmp_path: Path
) -> None:
    folder = shutil.copytree(calibrated, tmp_path / "letters", ignore=shutil.ignore_patterns("var"))
    rows = clean_rows(30)
    model = OnnxModel.load(CONFIGS / "letters" / "primary.onnx")
    wanted = model.run({"attributes": rows})["probabilities"]
    model.close()

    async def main() -> None:
        async with relay(behind) as (passed, url):
            edit(folder, (str(behind.data.base_url).rstrip("/"), url))
            async with opened(folder) as gateway:
                found = await gateway.decide(batch_of(rows, within_s=3.0))
            served = [i for i, decision in enumerate(found) if isinstance(decision.outcome, Served)]
            assert len(served) > 20
            for i in served:
                outcome = found[i].outcome
                assert isinstance(outcome, Served)
                assert np.allclose(outcome.output["probabilities"], wanted[i : i + 1], rtol=1e-5, atol=1e-6)
            asked = passed.heads[-1]
            assert asked["content-type"] == "application/octet-stream"
            (x,) = asked["document"]["inputs"]
            assert x["shape"] == [30, 16] and x["parameters"] == {"binary_data_size": rows.nbytes}
            assert 0 < asked["document"]["parameters"]["timeout"] <= 2_000_000, "the rung has 2 s"

    run(main)


def test_the_deadline_in_front_is_the_deadline_behind(
    calibrated: Path, behind: Running, tmp_path: Path
) -> None:
    folder = shutil.copytree(calibrated, tmp_path / "letters", ignore=shutil.ignore_patterns("var"))

    async def main() -> None:
        async with relay(behind) as (passed, url):
            edit(folder, (str(behind.data.base_url).rstrip("/"), url))
            async with opened(folder) as gateway:
                await gateway.decide(batch_of(clean_rows(1), within_s=0.5))
            assert 0 < passed.heads[-1]["document"]["parameters"]["timeout"] <= 500_000

    run(main)


def test_a_gateway_behind_that_refuses_a_row_is_a_failure_to_the_one_in_front(behind: Running) -> None:
    """It answers 400 to a value outside the range of its input; the rows beside it are answered."""

    async def main() -> None:
        address = UpstreamAddress.parse(str(behind.data.base_url).rstrip("/"))
        client = connect(RemoteModel(address, "letters"))
        described = await client.describe(5)
        rows = clean_rows(1)
        assert (await client.infer({"attributes": rows}, described, 5))["features"].shape == (1, 96)
        with pytest.raises(UpstreamFailed, match=r"400: .*above 15"):
            await client.infer({"attributes": rows + 100}, described, 5)
        await client.close()

    run(main)
