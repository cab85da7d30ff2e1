"""The state of one HTTP connection, as literal tables. `Reader` and `Connection` follow them.

Theory of operation
===================

A connection has two sides, and each is a state machine of its own. The read side says where the bytes of the
client stand (`ReadState`, kept by `Reader`); the write side says what has become of the reply under way
(`WriteState`, kept by `Connection`). An event moves one side, as `READ_TABLE` and `WRITE_TABLE` say; the end
of input and the end of the connection move both. Between the two stands a queue: requests that have been
read, and wait until the reply before theirs is written.

    bytes ──> read side ──> queue ──> write side ──> replies
              IDLE              READY
              HEAD              ANSWERING
              BODY ...          FLUSHING ...

The queue is the one part that is not finite. The tables need not count it, because of two rules:

1. A connection that is READY never rests while a request waits: the first of the queue is begun at once. So
   one request is answered at a time, in the order of arrival.
2. While anything waits, nothing is read. So a client that sends requests faster than it takes replies is
   held back by TCP, and neither the end of input nor a broken rule can arrive behind a request that waits.

What follows from the two states together stands in three tables more:

* `WAITS` and `WAITS_QUEUED`: what the connection waits for, whether it reads meanwhile, and whether a request
  is under way, which at shutdown is finished. What is waited for also gives the deadline (`timeouts_s`), and
  what happens when that passes:

      Target    limit     after it
      REQUEST   idle_s    the connection is closed without a reply
      HEAD      head_s    408, and the connection ends
      BODY      body_s    408, and the connection ends
      ANSWER    none      the handler has deadlines of its own
      FLUSH     stuck_s   the connection is aborted, unless some bytes were taken meanwhile
      CLOSE     linger_s  the same; stuck_s as long as bytes are unsent

  A deadline starts when another thing is awaited than before, or when a request is begun in between. A head
  or a body that arrives byte by byte gets no more time than one that does not arrive.

* `REPLIES`: whether a reply keeps the connection open. It does, unless no further request can be read:
  after the last request, read whole, the connection closes; after a reply that came before the request was
  read, or to one that broke a rule, it lingers. A plain close would make the client's system discard a reply
  that it has not read yet as soon as more of the request arrives, so only the sending half is closed, and
  what still arrives is dropped until the client closes too. `LAST_REPLIES` has the same for a server
  that drains: it closes instead of keeping, and lingers where the client has sent more than the request.

Three parts of a request are not states, since they are settled before it is queued and never change: its
step (a reply, or what answers it), its body, and whether its reply goes without a body.

A cell is the next state, or NEVER: the event cannot happen in that state. Why it cannot is one of:

* the event comes from the code that the other cells describe (a reply is written only where one was begun);
* llhttp reports the parts of a request in order;
* the transport reports no end of input while reading is paused or after it was closed, and it reports by
  turns that it is full and no longer full, as `asyncio` documents;
* a pair of states is left in the same call in which it is entered, as READY with a request in the queue is.

To look up such a cell raises KeyError, and asyncio then ends the connection: it is a defect of the gateway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final, TypeVar

from gateway.listener.limits import Limits


class ReadState(IntEnum):
    """Where the bytes of the client stand."""

    IDLE = 0
    """Between two requests: no byte of the next one has been read."""
    HEAD = 1
    """Within the request line, the headers, or what separates them from the body."""
    EXPECT = 2
    """Within a request whose client waits for `100 Continue` before it sends the body."""
    BODY = 3
    """Within the body of a request that is queued when all of it has been read."""
    SURPLUS = 4
    """Within a body that nothing needs: its request is queued, under way, or refused already."""
    DONE = 5
    """The last request has been read whole, or this side has ended the connection: all else is dropped."""
    REFUSED = 6
    """The client broke a rule or was turned away: a refusal is the last reply, all else is dropped."""
    SPOILED = 7
    """The client broke a rule in a body that nothing needs: the reply to that request is the last."""
    EOF = 8
    """The client has closed its sending half."""


class ReadEvent(IntEnum):
    """What moves the read side."""

    TURNED_AWAY = 0
    """There are too many connections: this one gets a refusal and is not read."""
    HEAD_BEGUN = 1
    """The first byte of a request."""
    BODY_EXPECTED = 2
    """The end of a head; the body is needed, and the client waits for `100 Continue`."""
    BODY_NEEDED = 3
    """The end of a head; the body is needed."""
    BODY_UNNEEDED = 4
    """The end of a head; the request is queued without its body."""
    CONTINUED = 5
    """`100 Continue` was sent."""
    REQUEST_READ = 6
    """The end of a request, after which another may follow."""
    LAST_REQUEST_READ = 7
    """The end of a request after which the connection ends."""
    RULE_BROKEN = 8
    """What was read is no HTTP, breaks a limit or came too late; or the handler failed on a head."""
    EOF = 9
    """The client has closed its sending half."""
    ENDED = 10
    """This side has ended the connection, or it is lost."""


class WriteState(IntEnum):
    """What has become of the reply under way."""

    READY = 0
    """None is under way, and one may be written."""
    ANSWERING = 1
    """The handler works on a request."""
    STALLED = 2
    """The handler works on a request, and the client takes too little of what was written before."""
    FLUSHING = 3
    """None is under way, and the client takes too little of what was written: the next one is not begun."""
    LINGERING = 4
    """The last reply is written and the sending half closed: the client may read it, and close."""
    CLOSING = 5
    """The transport closes, at once or as soon as all is sent."""
    DETACHED = 6
    """The connection is lost and the handler still works on a request."""
    CLOSED = 7
    """The connection is lost and nothing is left of it."""


class WriteEvent(IntEnum):
    """What moves the write side."""

    ANSWER_BEGUN = 0
    """A request was given to the handler."""
    REPLY_KEEPS = 1
    """A reply is written, after which the connection stays open."""
    REPLY_CLOSES = 2
    """The last reply is written; all of its request has been read."""
    REPLY_LINGERS = 3
    """The last reply is written; the client may still be sending."""
    NO_REPLY = 4
    """The handler gave no reply, or there is no connection to write it to."""
    CANCELLED = 5
    """The handler's work was cancelled."""
    BLOCKED = 6
    """The transport has more unsent bytes than it wants."""
    RESUMED = 7
    """The transport takes more again."""
    EOF = 8
    """The client has closed its sending half."""
    HUNG_UP = 9
    """This side closes the connection without a reply."""
    ABORTED = 10
    """This side gives the connection up, with what is unsent."""
    LOST = 11
    """The connection is lost or closed: there is no transport any more."""


class WaitTarget(IntEnum):
    """What a connection waits for."""

    REQUEST = 0
    """The first byte of a request."""
    HEAD = 1
    """The rest of a head."""
    BODY = 2
    """The rest of a body."""
    ANSWER = 3
    """The handler."""
    FLUSH = 4
    """The client, to take what is written."""
    CLOSE = 5
    """The end of the connection."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a connection does until the next event.

    awaits: gives its deadline; reads: whether the transport delivers bytes; under_way: whether a request is
    under way, which at shutdown is finished; continues: whether `100 Continue` is to be sent first.
    """

    awaits: WaitTarget
    reads: bool
    under_way: bool
    continues: bool = False


class Never(Enum):
    """The type of `NEVER`, the cell of an event that cannot happen in a state."""

    NEVER = auto()


IDLE, HEAD, EXPECT, BODY, SURPLUS, DONE, REFUSED, SPOILED, EOF = ReadState
READY, ANSWERING, STALLED, FLUSHING, LINGERING, CLOSING, DETACHED, CLOSED = WriteState
NEVER: Final = Never.NEVER

FIRST_BYTE = Wait(WaitTarget.REQUEST, reads=True, under_way=False)
REST_OF_HEAD = Wait(WaitTarget.HEAD, reads=True, under_way=False)
REST_OF_BODY = Wait(WaitTarget.BODY, reads=True, under_way=True)
CONTINUE = Wait(WaitTarget.BODY, reads=True, under_way=True, continues=True)
ANSWER = Wait(WaitTarget.ANSWER, reads=True, under_way=True)
ANSWER_PAUSED = Wait(WaitTarget.ANSWER, reads=False, under_way=True)
STALL = Wait(WaitTarget.FLUSH, reads=True, under_way=True)
STALL_PAUSED = Wait(WaitTarget.FLUSH, reads=False, under_way=True)
FLUSH = Wait(WaitTarget.FLUSH, reads=True, under_way=False)
FLUSH_PAUSED = Wait(WaitTarget.FLUSH, reads=False, under_way=False)
CLOSE = Wait(WaitTarget.CLOSE, reads=True, under_way=False)

_R, _W = ReadEvent, WriteEvent
ReadCell = ReadState | Never
WriteCell = WriteState | Never
WaitCell = Wait | Never

# fmt: off
READ_TABLE: Mapping[ReadEvent, Sequence[ReadCell]] = {
    #                      IDLE     HEAD     EXPECT   BODY     SURPLUS  DONE     REFUSED  SPOILED  EOF
    _R.TURNED_AWAY:       (REFUSED, NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER),
    _R.HEAD_BEGUN:        (HEAD,    NEVER,   NEVER,   NEVER,   NEVER,   DONE,    NEVER,   NEVER,   NEVER),
    _R.BODY_EXPECTED:     (NEVER,   EXPECT,  NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER),
    _R.BODY_NEEDED:       (NEVER,   BODY,    NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER),
    _R.BODY_UNNEEDED:     (NEVER,   SURPLUS, NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER),
    _R.CONTINUED:         (NEVER,   NEVER,   BODY,    NEVER,   NEVER,   NEVER,   NEVER,   NEVER,   NEVER),
    _R.REQUEST_READ:      (NEVER,   NEVER,   IDLE,    IDLE,    IDLE,    NEVER,   NEVER,   NEVER,   NEVER),
    _R.LAST_REQUEST_READ: (NEVER,   NEVER,   DONE,    DONE,    DONE,    NEVER,   NEVER,   NEVER,   NEVER),
    _R.RULE_BROKEN:       (NEVER,   REFUSED, REFUSED, REFUSED, SPOILED, DONE,    NEVER,   NEVER,   NEVER),
    _R.EOF:               (EOF,     EOF,     NEVER,   EOF,     NEVER,   EOF,     NEVER,   NEVER,   EOF),
    _R.ENDED:             (DONE,    DONE,    DONE,    DONE,    DONE,    DONE,    DONE,    DONE,    EOF),
}
"""The next state of the read side, by event and state.

DONE meets the first byte of a request, or bytes that break a rule, where they follow the last request in one
piece: they are dropped like all that comes later. EOF meets itself over TLS, which ends before TCP does.
"""

WRITE_TABLE: Mapping[WriteEvent, Sequence[WriteCell]] = {
    #                  READY      ANSWERING  STALLED    FLUSHING  LINGERING  CLOSING  DETACHED  CLOSED
    _W.ANSWER_BEGUN:  (ANSWERING, NEVER,     NEVER,     NEVER,    NEVER,     NEVER,   NEVER,    NEVER),
    _W.REPLY_KEEPS:   (READY,     READY,     FLUSHING,  NEVER,    NEVER,     NEVER,   NEVER,    NEVER),
    _W.REPLY_CLOSES:  (CLOSING,   CLOSING,   CLOSING,   NEVER,    NEVER,     NEVER,   NEVER,    NEVER),
    _W.REPLY_LINGERS: (LINGERING, LINGERING, LINGERING, NEVER,    NEVER,     NEVER,   NEVER,    NEVER),
    _W.NO_REPLY:      (NEVER,     CLOSING,   CLOSING,   NEVER,    NEVER,     NEVER,   CLOSED,   NEVER),
    _W.CANCELLED:     (NEVER,     CLOSING,   CLOSING,   NEVER,    NEVER,     NEVER,   CLOSED,   NEVER),
    _W.BLOCKED:       (FLUSHING,  STALLED,   NEVER,     NEVER,    LINGERING, CLOSING, NEVER,    NEVER),
    _W.RESUMED:       (NEVER,     NEVER,     ANSWERING, READY,    LINGERING, CLOSING, NEVER,    NEVER),
    _W.EOF:           (CLOSING,   ANSWERING, STALLED,   CLOSING,  CLOSING,   NEVER,   NEVER,    NEVER),
    _W.HUNG_UP:       (CLOSING,   NEVER,     NEVER,     CLOSING,  CLOSING,   CLOSING, NEVER,    NEVER),
    _W.ABORTED:       (CLOSING,   ANSWERING, STALLED,   CLOSING,  CLOSING,   CLOSING, NEVER,    NEVER),
    _W.LOST:          (CLOSED,    DETACHED,  DETACHED,  CLOSED,   CLOSED,    CLOSED,  NEVER,    NEVER),
}
"""The next state of the write side, by event and state.

A reply moves the state before its bytes go to the transport, which may report BLOCKED at once: the end of the
last reply does not depend on it. ABORTED leaves the handler at work, whose task is cancelled too.
"""

WAITS_TABLE: Mapping[ReadState, Sequence[WaitCell]] = {
    #          READY         ANSWERING      STALLED       FLUSHING      LINGERING CLOSING DETACHED CLOSED
    IDLE:     (FIRST_BYTE,   ANSWER,        STALL,        FLUSH,        NEVER,    NEVER,  NEVER,   NEVER),
    HEAD:     (REST_OF_HEAD, ANSWER_PAUSED, STALL_PAUSED, FLUSH_PAUSED, NEVER,    NEVER,  NEVER,   NEVER),
    EXPECT:   (CONTINUE,     ANSWER_PAUSED, STALL_PAUSED, STALL_PAUSED, NEVER,    NEVER,  NEVER,   NEVER),
    BODY:     (REST_OF_BODY, ANSWER_PAUSED, STALL_PAUSED, STALL_PAUSED, NEVER,    NEVER,  NEVER,   NEVER),
    SURPLUS:  (NEVER,        ANSWER_PAUSED, STALL_PAUSED, NEVER,        NEVER,    NEVER,  NEVER,   NEVER),
    DONE:     (NEVER,        ANSWER,        STALL,        NEVER,        CLOSE,    CLOSE,  NEVER,   NEVER),
    REFUSED:  (NEVER,        NEVER,         NEVER,        NEVER,        NEVER,    NEVER,  NEVER,   NEVER),
    SPOILED:  (NEVER,        ANSWER_PAUSED, STALL_PAUSED, NEVER,        NEVER,    NEVER,  NEVER,   NEVER),
    EOF:      (NEVER,        ANSWER,        STALL,        NEVER,        NEVER,    CLOSE,  NEVER,   NEVER),
}
"""What is waited for while no request is queued, by both states.

With a reply under way or not yet taken, what has been read of a further request is enough: reading pauses
until that request can be begun. At a boundary between requests it goes on, to notice the end of input.
"""

WAITS_QUEUED_TABLE: Sequence[WaitCell] = (
    #          READY         ANSWERING      STALLED       FLUSHING      LINGERING CLOSING DETACHED CLOSED
               NEVER,        ANSWER_PAUSED, STALL_PAUSED, STALL_PAUSED, NEVER,    NEVER,  NEVER,   NEVER
)
"""The same while a request is queued, whatever the read side has come to."""
# fmt: on

REPLIES: Mapping[ReadState, WriteEvent] = {
    IDLE: _W.REPLY_KEEPS,
    HEAD: _W.REPLY_KEEPS,  # of the next request, as in EXPECT and BODY
    EXPECT: _W.REPLY_KEEPS,
    BODY: _W.REPLY_KEEPS,
    SURPLUS: _W.REPLY_LINGERS,
    DONE: _W.REPLY_CLOSES,
    REFUSED: _W.REPLY_LINGERS,
    SPOILED: _W.REPLY_LINGERS,
    EOF: _W.REPLY_CLOSES,
}
"""What a reply does to the connection if no further request is queued. If one is, it keeps it."""
LAST_REPLIES: Mapping[ReadState, WriteEvent] = {
    **REPLIES,
    IDLE: _W.REPLY_CLOSES,
    HEAD: _W.REPLY_LINGERS,
    EXPECT: _W.REPLY_LINGERS,
    BODY: _W.REPLY_LINGERS,
}
"""The same while the server drains. If a further request is queued, it lingers."""


def timeouts_s(limits: Limits) -> Mapping[WaitTarget, float]:
    """For how long each thing is awaited, in seconds."""
    return {
        WaitTarget.REQUEST: limits.idle_s,
        WaitTarget.HEAD: limits.head_s,
        WaitTarget.BODY: limits.body_s,
        WaitTarget.ANSWER: math.inf,
        WaitTarget.FLUSH: limits.stuck_s,
        WaitTarget.CLOSE: limits.linger_s,
    }


State = TypeVar("State", bound=IntEnum)
Cell = TypeVar("Cell")


def _possible(cells: Sequence[Cell | Never], states: type[State]) -> dict[State, Cell]:
    return {state: cell for state in states if not isinstance(cell := cells[state], Never)}


# The tables as they are looked up, without the cells that are NEVER: plain dictionaries, 20 ns a look-up.
AFTER_READ = {event: _possible(cells, ReadState) for event, cells in READ_TABLE.items()}
AFTER_WRITE = {event: _possible(cells, WriteState) for event, cells in WRITE_TABLE.items()}
WAITS_QUEUED = _possible(WAITS_QUEUED_TABLE, WriteState)
WAITS = {
    write: {read: cell for read, cells in WAITS_TABLE.items() if not isinstance(cell := cells[write], Never)}
    for write in WriteState
}
