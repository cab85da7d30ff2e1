"""Which policies are in force over the replicas, from the metrics that each of them states for itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

STATED = b"gateway_policy_info{"


def tags_by_model(texts: Iterable[bytes]) -> dict[str, set[str]]:
    """The tags in force, by model.

    Args:    texts: Prometheus text of replicas and deployments, in any order.
    Cost:    that of the lines with tags, one a replica and model.
    """
    lines = [line for text in texts for line in text.splitlines() if line.startswith(STATED)]
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(b"\n".join([*lines, b""]).decode()):
        for sample in family.samples:
            found[sample.labels["model"]].add(sample.labels["policy"])
    return dict(found)
