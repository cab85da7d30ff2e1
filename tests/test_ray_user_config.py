"""Ray Serve's `user_config`: a new one reloads each replica in place, and names the policy it expects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.serving.test_versions import put_version
from tests.support.deployments import letters
from tests.support.served import STOP_WITHIN_S, TOKEN, free_port

ALONE = r"""
import asyncio, json, sys
from pathlib import Path
from gateway.app import GatewayReplica

folder, ports, token, expected = Path(sys.argv[1]), sys.argv[2:5], sys.argv[5], sys.argv[6]
address = dict(zip(("port", "grpc_port", "admin_port"), map(int, ports)))


async def main():
    replica, seen = GatewayReplica([str(folder)], "", address, token, 1), []
    path = folder / "gateway.yaml"
    first, second = path.read_text(), path.read_text().replace('version: "1"', 'version: "2"')
    for text, user_config in (
        (first, {"generation": 0}),
        (second, {"generation": 1, "policy": expected}),
        (second.replace("kind: rate", "kind: rat"), {"generation": 2, "policy": "0123456789ab"}),
    ):
        path.write_text(text)
        await replica.reconfigure(user_config)
        [gateway] = replica._replica.repository.gateways.values()
        seen.append([await replica(), gateway.expected, gateway.reloads.failures])
    await replica.__del__()
    print(json.dumps(seen))


asyncio.run(main())
"""
"""One replica without a cluster: what Serve calls, in the order in which it does."""
RUN = r"""
import json, os, re, sys
from pathlib import Path
import httpx
from gateway.app import APP, Cluster, Options
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

folder, ports, expected = Path(sys.argv[1]), [int(port) for port in sys.argv[2:5]], sys.argv[5:]
options = Options(folder=str(folder), port=ports[0], grpc_port=ports[1], admin_port=ports[2], replicas=2)
headers = {"authorization": f"Bearer {os.environ['GATEWAY_ADMIN_TOKEN']}", "accept": "application/json"}
admin = httpx.Client(base_url=f"http://127.0.0.1:{ports[2]}", headers=headers, timeout=60)
cluster, seen = Cluster(options), []


def state():
    status, metrics = admin.get("/status").json(), admin.get("/metrics").text
    met = re.findall(r"^gateway_policy_expected\{.*\} (.*)$", metrics, re.MULTILINE)
    return [status["policies"], sorted(one["name"] for one in status["replicas"]), met]


def deploy(user_config):
    # as `serve deploy` of a file, in which the application is imported by its path
    gateway = {"name": "gateway", "user_config": user_config}
    app = {"name": APP, "route_prefix": None, "import_path": "gateway.app:build"}
    app |= {"args": options.model_dump(), "deployments": [gateway]}
    _get_global_client().deploy_apps(ServeDeploySchema.parse_obj({"applications": [app]}), _blocking=True)


try:
    cluster.start()
    deploy({"generation": 0})
    seen.append(state())
    for generation, policy in enumerate(expected, 1):
        text = (folder / "gateway.yaml").read_text()
        text = re.sub('version: ".*"', f'version: "{generation + 1}"', text)
        (folder / "gateway.yaml").write_text(text)
        deploy({"generation": generation, "policy": policy})
        seen.append(state())
finally:
    cluster.stop()
print(json.dumps(seen))
"""


def ran(script: str, *arguments: str) -> list[Any]:
    """What a script prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"GATEWAY_ADMIN_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
        timeout=STOP_WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = orjson.loads(done.stdout.splitlines()[-1])
    return found


def test_a_replica_reloads_at_a_new_user_config_and_keeps_the_old_policy_if_that_cannot_be_loaded(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)
    first, second = (put_version(folder, number) for number in (1, 2))
    put_version(folder, 1)
    ports = [str(free_port()) for _ in range(3)]
    expected = second.rpartition("#")[2]
    assert ran(ALONE, str(folder), *ports, TOKEN, expected) == [
        [first, "", 0],
        [second, expected, 0],
        [second, "0123456789ab", 1],
    ]


@pytest.mark.ray
def test_a_new_user_config_reloads_every_replica_in_place_and_says_whether_its_policy_is_in_force(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)
    tags = [put_version(folder, number) for number in (1, 2, 3)]
    put_version(folder, 1)
    ports = [str(free_port()) for _ in range(3)]
    expected = (tags[1].rpartition("#")[2], "0123456789ab")
    first, second, third = ran(RUN, str(folder), *ports, *expected)
    assert [one[0] for one in (first, second, third)] == [{tag: 2} for tag in tags]
    assert first[1] == second[1] == third[1], "the same replicas, which were not restarted"
    assert [one[2] for one in (first, second, third)] == [[], ["1.0", "1.0"], ["0.0", "0.0"]]
