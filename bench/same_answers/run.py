"""The same requests to two servers beside each other, one request at a time to each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from bench.same_answers import grpc_wire, http_wire
from bench.same_answers.case import ADMIN, LATE, UNFILLED, Case, Fields, Http, Known, Unfilled
from bench.same_answers.cases import cases_of
from bench.same_answers.compare import Compared, compared
from bench.same_answers.deployment import FORMS, load
from bench.same_answers.tree import Served, serving

Told = Callable[[str], None]


class Asker:
    """Sends cases to one server, and remembers what it said for those that repeat some of it."""

    def __init__(self, served: Served, channel: grpc.Channel) -> None:
        self._ports, self._channel = served.ports, channel
        self._known = Known(served.keys, {})

    def ask(self, case: Case) -> Fields:
        """Everything that comes back, as it came."""
        try:
            answer = self._asked(case)
        except Unfilled:
            answer = (("not sent", UNFILLED),)
        except OSError:
            answer = (("end", LATE),)
        self._known.said[case.name] = answer
        return answer

    def _asked(self, case: Case) -> Fields:
        fill = self._known.fill
        if isinstance(case, Http):
            time.sleep(case.pause_s)
            port = self._ports.admin if case.plane == ADMIN else self._ports.data
            return http_wire.ask(port, case, tuple(map(fill, case.parts)))
        metadata = tuple((name, fill(value.encode()).decode()) for name, value in case.metadata)
        return grpc_wire.call(self._channel, case, fill(case.message), metadata)


def run(here: Path, there: Path, tell: Told) -> Iterator[Compared]:
    """Every request to every deployment, compared. Raises WrongTree."""
    for name in FORMS:
        tell(f"{name}: starting both trees")
        with TemporaryDirectory(prefix="same-answers-") as scratch, ExitStack() as stack:
            yield from _deployment(name, (here, there), Path(scratch), stack, tell)


def _deployment(
    name: str, trees: tuple[Path, Path], scratch: Path, stack: ExitStack, tell: Told
) -> Iterator[Compared]:
    folders = [scratch / part for part in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    pool = stack.enter_context(ThreadPoolExecutor(2))
    starts = [serving(tree, name, folder) for tree, folder in zip(trees, folders, strict=True)]
    served = list(pool.map(stack.enter_context, starts))
    channels = [stack.enter_context(grpc_wire.channel_to(one.ports.grpc)) for one in served]
    askers = [Asker(one, channel) for one, channel in zip(served, channels, strict=True)]
    cases = cases_of(load(name))
    for i, case in enumerate(cases):
        tell(f"{name}: request {i + 1} of {len(cases)}")
        ours, theirs = pool.map(lambda asker, case=case: asker.ask(case), askers)
        yield compared(name, case, ours, theirs)
