"""The same requests to two servers beside each other, one request at a time to each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from bench.output import StatusCallback
from bench.same_answers import grpc_wire, http_wire
from bench.same_answers.compare import ComparedExchange, compare_answers
from bench.same_answers.exchange import (
    ADMIN,
    TIMED_OUT,
    UNRESOLVED,
    Exchange,
    HttpExchange,
    PlaceholderValues,
    RecordedAnswer,
    UnresolvedPlaceholder,
)
from bench.same_answers.exchanges import exchanges_of
from bench.same_answers.sampled_deployment import SAMPLED_DEPLOYMENTS, load_deployment
from bench.same_answers.tree import RunningTree, serve_tree


class ExchangeSender:
    """Sends exchanges to one server, and keeps its answers for later ones that repeat parts of them."""

    def __init__(self, served: RunningTree, channel: grpc.Channel) -> None:
        self._ports, self._channel = served.ports, channel
        self._values = PlaceholderValues(served.keys, {})

    def send(self, exchange: Exchange) -> RecordedAnswer:
        """The whole answer, as received."""
        try:
            answer = self._send(exchange)
        except UnresolvedPlaceholder:
            answer = (("not sent", UNRESOLVED),)
        except OSError:
            answer = (("end", TIMED_OUT),)
        self._values.answers[exchange.name] = answer
        return answer

    def _send(self, exchange: Exchange) -> RecordedAnswer:
        fill = self._values.fill
        if isinstance(exchange, HttpExchange):
            time.sleep(exchange.pause_s)
            port = self._ports.admin if exchange.plane == ADMIN else self._ports.data
            return http_wire.send_exchange(port, exchange, tuple(map(fill, exchange.parts)))
        metadata = tuple((name, fill(value.encode()).decode()) for name, value in exchange.metadata)
        return grpc_wire.call(self._channel, exchange, fill(exchange.message), metadata)


def compare_trees(here: Path, there: Path, show_status: StatusCallback) -> Iterator[ComparedExchange]:
    """Every request to every deployment, compared. Raises WrongTree."""
    for name in SAMPLED_DEPLOYMENTS:
        show_status(f"{name}: starting both trees")
        with TemporaryDirectory(prefix="same-answers-") as scratch, ExitStack() as stack:
            yield from _compare_deployment(name, (here, there), Path(scratch), stack, show_status)


def _compare_deployment(
    name: str, trees: tuple[Path, Path], scratch: Path, stack: ExitStack, show_status: StatusCallback
) -> Iterator[ComparedExchange]:
    folders = [scratch / part for part in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    pool = stack.enter_context(ThreadPoolExecutor(2))
    starts = [serve_tree(tree, name, folder) for tree, folder in zip(trees, folders, strict=True)]
    served = list(pool.map(stack.enter_context, starts))
    channels = [stack.enter_context(grpc_wire.channel_to(one.ports.grpc)) for one in served]
    senders = [ExchangeSender(one, channel) for one, channel in zip(served, channels, strict=True)]
    exchanges = exchanges_of(load_deployment(name))
    for i, exchange in enumerate(exchanges):
        show_status(f"{name}: request {i + 1} of {len(exchanges)}")
        ours, theirs = pool.map(lambda sender, exchange=exchange: sender.send(exchange), senders)
        yield compare_answers(name, exchange, ours, theirs)
