"""A connection without bytes, sockets or time: what the tables of `states` say of a sequence of steps.

`ModelConnection.after(step)` is the state after a step of the client, the handler, the clock or the server,
or None where that step is not possible. `shortest_paths` tries every sequence up to a length, and so finds
which cells of the tables can be reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from gateway.listener.states import (
    AFTER_READ,
    AFTER_WRITE,
    ANSWERING,
    CLOSED,
    CLOSING,
    CONTINUE,
    DETACHED,
    DONE,
    EOF,
    READY,
    REFUSED,
    REPLIES,
    STALLED,
    WAITS,
    WAITS_QUEUED,
    ReadEvent,
    ReadState,
    Wait,
    WaitTarget,
    WriteEvent,
    WriteState,
)

Tokens: TypeAlias = tuple[str, ...]
Cell: TypeAlias = tuple[str, str, str]
"""A table, and the two names that give a cell of it."""

NEEDS_BODY = ("slow", "expect")
AT_ONCE = ("now", "large", "refusal")
KINDS = ("slow", "expect", "bodiless", "now", "large")
"""slow, expect: answered with their body when released; bodiless: without it; now, large: at once."""

CLIENT_STEPS: Sequence[Tokens] = (
    ("begin",),
    *((kind,) for kind in KINDS),
    *((f"{kind} last",) for kind in ("slow", "bodiless")),
    *(("begin", kind) for kind in ("expect", "slow", "now")),
    ("bodiless", "break"),
    ("end",),
    ("end", "break"),
    ("begin", "now last", "end", "begin"),
    ("begin", "expect last", "end"),
    ("break",),
    ("begin", "now", "end"),
    ("begin", "large", "end"),
    ("begin", "slow", "end"),
)
"""What a client sends in one piece.

begin: the first bytes of a request; a kind: the rest of its head, with `last` of one after which the
connection ends ("now last" since its caller has too many connections, else by a header); end: the rest of its
body; break: bytes that are no HTTP.
"""
TURNED_AWAY = "turned away"
OTHER_STEPS = (
    TURNED_AWAY,
    *("half-close", "half-close again", "reset", "take"),
    *("release", "release large", "no reply", "cancel"),
    *("expire", "drain", "terminate", "block", "unblock"),
)
"""turned away: there were too many connections before; take: the client reads the replies that are written;
block, unblock: the transport reports that it is full, and no longer full, without a reply, as over TLS."""
STEPS: Sequence[Tokens | str] = (*CLIENT_STEPS, *OTHER_STEPS)


@dataclass(frozen=True)
class ModelConnection:
    """full: of a reply that the client does not take ("reply"), or as reported by a step ("report").

    sent: what the client has sent and nothing has read yet; client: where its bytes stand, between requests,
    in a "head" or a "body", or "over"; kind: of the request that is being read.
    """

    read: ReadState = ReadState.IDLE
    write: WriteState = READY
    queue: Tokens = ()
    sent: Tokens = ()
    client: str = "between"
    kind: str = ""
    last: bool = False
    full: str = ""
    draining: bool = False
    replies: int = 0
    visited: frozenset[Cell] = frozenset()

    @property
    def wait(self) -> Wait | None:
        """None once there is no transport."""
        if self.write in (DETACHED, CLOSED):
            return None
        return WAITS_QUEUED[self.write] if self.queue else WAITS[self.write][self.read]

    def after(self, step: Tokens | str) -> ModelConnection | None:
        walk = Walk(self)
        possible = walk.client(step) if isinstance(step, tuple) else walk.other(step)
        return walk.settled() if possible else None


class Walk:
    """One step of a model, event by event."""

    def __init__(self, model: ModelConnection) -> None:
        self.at = replace(model, visited=frozenset())

    def _set(self, **changes: object) -> None:
        self.at = replace(self.at, **changes)  # type: ignore[arg-type]

    def _read(self, event: ReadEvent) -> None:
        cell = ("read", event.name, self.at.read.name)
        self._set(read=AFTER_READ[event][self.at.read], visited=self.at.visited | {cell})

    def _write(self, event: WriteEvent) -> None:
        cell = ("write", event.name, self.at.write.name)
        self._set(write=AFTER_WRITE[event][self.at.write], visited=self.at.visited | {cell})

    def _wait(self) -> Wait | None:
        at = self.at
        if at.write not in (DETACHED, CLOSED):
            cell = ("wait", at.write.name, "QUEUED" if at.queue else at.read.name)
            self._set(visited=at.visited | {cell})
        return at.wait

    # ---------------------------------------------------------------- steps

    def client(self, tokens: Tokens) -> bool:
        """The client sends one piece. Possible if each token follows the one before."""
        if self.at.write in (DETACHED, CLOSED, CLOSING) or "half-close" in self.at.sent:
            return False
        if self.at.read is EOF or len(self.at.sent) > 2:
            return False
        for token in tokens:
            position = self.at.client
            match token:
                case "begin" if position == "between":
                    self._set(client="head")
                case "end" if position == "body":
                    self._set(client="between")
                case "break" if position != "over":
                    self._set(client="over")
                case _ if token.split()[0] in KINDS and position == "head":
                    self._set(client="body")
                case _:
                    return False
        self._set(sent=(*self.at.sent, *tokens))
        return True

    def other(self, step: str) -> bool:
        at, wait = self.at, self.at.wait
        answering = at.write in (ANSWERING, STALLED, DETACHED)
        match step:
            case "turned away" if at == ModelConnection():
                self._read(ReadEvent.TURNED_AWAY)
                self._set(queue=("refusal",))
            case "half-close" if wait and at.read is not EOF and at.write is not CLOSING:
                if "half-close" in at.sent:
                    return False
                self._set(sent=(*at.sent, "half-close"), client="over")
            case "half-close again" if at.read is EOF and at.write in (ANSWERING, STALLED):
                self._eof()
            case "reset" if wait and (at.full == "reply" or (wait.reads and at.read is not EOF)):
                self._lost()
            case "take" if at.full == "reply" and wait:
                self._resume()
            case "unblock" if at.full == "report" and wait:
                self._resume()
            case "block" if at.write is ANSWERING:
                self._set(full="report")
                self._write(WriteEvent.BLOCKED)
            case "release" | "release large" if answering and wait:
                if at.full and step == "release large":
                    return False
                self._reply(large=step == "release large")
            case "no reply" | "cancel" | "release" if answering:
                self._end_without_reply(WriteEvent.CANCELLED if step == "cancel" else WriteEvent.NO_REPLY)
            case "expire" if wait and wait.awaits is not WaitTarget.ANSWER:
                self._expire(wait)
            case "drain" if wait:
                self._set(draining=True)
                if not wait.under_way:
                    self._hang_up()
            case "terminate" if wait:
                self._abort(WriteEvent.ABORTED)
                if answering:  # the task and the transport end in any order
                    self._set(write=CLOSED, sent=())
                else:
                    self._lost()
            case _:
                return False
        return True

    def settled(self) -> ModelConnection:
        """After all that follows without another step."""
        while True:
            self._proceed()
            wait = self.at.wait
            if wait and self.at.write is CLOSING and not self.at.full:
                self._lost()
            elif wait and wait.reads and self.at.sent and self.at.write is not CLOSING:
                self._deliver()
            else:
                self._wait()
                return self.at

    # ---------------------------------------------------------------- what a connection does

    def _deliver(self) -> None:
        sent = self.at.sent
        end = sent.index("half-close") if "half-close" in sent else len(sent)
        if end == 0:
            self._set(sent=())
            self._eof()
            return
        self._set(sent=sent[end:])
        if self.at.read >= DONE:
            return
        for token in sent[:end]:
            if self.at.read is DONE:  # what follows in the same piece stops the parser
                if token == "begin" and self.at.kind == "now":
                    self._read(ReadEvent.HEAD_BEGUN)
                self._read(ReadEvent.RULE_BROKEN)
            if self.at.read >= DONE:
                return
            self._token(token)

    def _token(self, token: str) -> None:
        at = self.at
        kind, _, last = token.partition(" ")
        match kind:
            case "begin":
                self._read(ReadEvent.HEAD_BEGUN)
            case "end":
                if at.kind in NEEDS_BODY:
                    self._set(queue=(*at.queue, at.kind))
                self._read(ReadEvent.LAST_REQUEST_READ if at.last else ReadEvent.REQUEST_READ)
            case "break":
                self._break()
            case _:
                self._set(kind=kind, last=bool(last))
                if kind in NEEDS_BODY:
                    expects = kind == "expect"
                    self._read(ReadEvent.BODY_EXPECTED if expects else ReadEvent.BODY_NEEDED)
                else:
                    self._read(ReadEvent.BODY_UNNEEDED)
                    self._set(queue=(*self.at.queue, kind))

    def _break(self) -> None:
        if self.at.read is ReadState.IDLE:  # every byte begins a head
            self._read(ReadEvent.HEAD_BEGUN)
        self._read(ReadEvent.RULE_BROKEN)
        if self.at.read is REFUSED:
            self._set(queue=(*self.at.queue, "refusal"))

    def _proceed(self) -> None:
        while self.at.queue and self.at.write is READY:
            kind, *queue = self.at.queue
            self._set(queue=tuple(queue))
            if kind in AT_ONCE:
                self._reply(large=kind == "large")
            else:
                self._write(WriteEvent.ANSWER_BEGUN)
        if self.at.read is ReadState.EXPECT and self.at.wait is CONTINUE:
            self._wait()
            self._read(ReadEvent.CONTINUED)

    def _reply(self, large: bool) -> None:
        event = WriteEvent.REPLY_KEEPS if self.at.queue else REPLIES[self.at.read]
        if event is WriteEvent.REPLY_KEEPS and self.at.draining:
            more = self.at.queue or self.at.read is not ReadState.IDLE
            event = WriteEvent.REPLY_LINGERS if more else WriteEvent.REPLY_CLOSES
        self._write(event)
        self._set(replies=self.at.replies + 1)
        if large:
            self._set(full="reply")
            self._write(WriteEvent.BLOCKED)
        if event is not WriteEvent.REPLY_KEEPS:
            self._end()

    def _end(self) -> None:
        self._read(ReadEvent.ENDED)
        self._set(queue=())
        if self.at.full == "report":  # nothing is unsent: it closes at once
            self._set(full="")

    def _hang_up(self) -> None:
        self._write(WriteEvent.HUNG_UP)
        self._end()

    def _abort(self, event: WriteEvent) -> None:
        self._write(event)
        self._end()
        self._set(full="")

    def _end_without_reply(self, event: WriteEvent) -> None:
        if self.at.write is DETACHED:
            self._write(event)
        elif event is WriteEvent.CANCELLED:
            self._abort(event)
        else:
            self._write(event)
            self._end()

    def _expire(self, wait: Wait) -> None:
        if wait.awaits in (WaitTarget.HEAD, WaitTarget.BODY):
            self._break()
        elif wait.awaits is WaitTarget.REQUEST:
            self._hang_up()
        else:
            self._abort(WriteEvent.ABORTED)
            self._lost()

    def _eof(self) -> None:
        self._read(ReadEvent.EOF)
        self._write(WriteEvent.EOF)
        if self.at.write is CLOSING and self.at.full == "report":
            self._set(full="")

    def _resume(self) -> None:
        self._set(full="")
        self._write(WriteEvent.RESUMED)

    def _lost(self) -> None:
        self._write(WriteEvent.LOST)
        self._end()
        self._set(full="", sent=())


@dataclass(frozen=True)
class ModelPath:
    """Steps from the beginning, and the model after each."""

    steps: tuple[Tokens | str, ...] = ()
    models: tuple[ModelConnection, ...] = (ModelConnection(),)

    def and_then(self, step: Tokens | str) -> ModelPath | None:
        after = self.models[-1].after(step)
        return None if after is None else ModelPath((*self.steps, step), (*self.models, after))

    def __str__(self) -> str:
        return ", ".join(step if isinstance(step, str) else "+".join(step) for step in self.steps)


def shortest_paths(longest: int) -> dict[Cell, ModelPath]:
    """Every cell that so many steps can reach, each with the first of the shortest sequences that do."""
    found: dict[Cell, ModelPath] = {}
    seen, todo = {ModelConnection()}, deque([ModelPath()])
    while todo:
        path = todo.popleft()
        for step in STEPS:
            longer = path.and_then(step)
            if longer is None:
                continue
            after = longer.models[-1]
            for cell in after.visited:
                found.setdefault(cell, longer)
            state = replace(after, visited=frozenset(), replies=0)
            if state not in seen and len(longer.steps) < longest:
                seen.add(state)
                todo.append(longer)
    return found
