"""What waits to be sent, what waits to be acknowledged, and what was given up: the bookkeeping of a connection.

Knows nothing of sockets. Lives as long as the :class:`~protocol.connection.Connection`, across all its network
connections, so packet identifiers (which belong to one of these) are kept only until that one is lost.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from protocol.broker_settings import Message


class Outbox:
    """A bounded queue that drops its oldest, and the QoS 1 messages that are on their way.

    >>> box = Outbox(limit=2)
    >>> for n in (b"1", b"2", b"3"):
    ...     box.put(Message("t", n, qos=1))
    >>> box.dropped["overflow"], [m.payload for m in box.waiting]
    (1, [b'2', b'3'])

    Sent but not acknowledged when the connection went: it goes again, before anything newer.

    >>> message = box.take(window=10)
    >>> box.sent(1, message); box.recall(()); [m.payload for m in box.waiting]
    [b'2', b'3']
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            msg = f"a queue of {limit} messages"
            raise ValueError(msg)
        self.limit = limit
        self.waiting: deque[Message] = deque()
        self.unacked: dict[int, Message] = {}
        self.dropped: Counter[str] = Counter()
        self.resent = 0
        self._again = 0  # so many at the head of `waiting` have been sent before

    def put(self, message: Message) -> None:
        """Queue a message; in a full queue the oldest makes room: a stale sample is worth less than a fresh one."""
        if len(self.waiting) >= self.limit:
            self.drop_next("overflow")
        self.waiting.append(message)

    def take(self, window: int) -> Message | None:
        """Return the next message, or None: nothing waits, or it is QoS 1 and ``window`` of these are on their way.

        A QoS 0 message does not overtake a QoS 1 message that has to wait: order is worth more than the moment.
        """
        if not self.waiting or (self.waiting[0].qos and len(self.unacked) >= window):
            return None
        if self._again:
            self._again -= 1
            self.resent += 1
        return self.waiting.popleft()

    def drop_next(self, reason: str) -> None:
        """Give up the message at the head, counted."""
        self.waiting.popleft()
        self._again = max(0, self._again - 1)
        self.dropped[reason] += 1

    def sent(self, mid: int, message: Message) -> None:
        """Keep a QoS 1 message until its PUBACK."""
        self.unacked[mid] = message

    def acknowledged(self, mid: int) -> Message | None:
        """Return the message that this PUBACK is for; None for one that nobody waits for."""
        return self.unacked.pop(mid, None)

    def recall(self, unwritten: Iterable[Message]) -> None:
        """Take everything back that the lost connection may not have delivered.

        Args:
            unwritten: QoS 0 messages that were handed over but not written in full; the broker cannot have seen them.
        """
        back = [*self.unacked.values(), *unwritten]
        self.unacked.clear()
        self._again += len(back)
        self.waiting.extendleft(reversed(back))

    def __len__(self) -> int:
        return len(self.waiting) + len(self.unacked)
