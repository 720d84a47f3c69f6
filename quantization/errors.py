"""The tree of everything that gammawear raises on purpose.

Catch :class:`GammawearError` at an edge (a network loop, a command line) and nothing else that is ours gets past.
Errors that a caller may want to count carry fields, so that nobody has to parse a message.
"""

from __future__ import annotations


class GammawearError(Exception):
    """Root of all errors of this project."""


class SensorError(GammawearError, ValueError):
    """A sensor description that no part could have."""


class CodebookError(GammawearError, ValueError):
    """A codebook that is malformed, or that does not fit what it is used with."""


class _RefusedError(GammawearError, ValueError):
    """Something that came over the network and is not what it should be.

    Args:
        reason: one of a small fixed set of words, fit for a metric's label (``"checksum"``, ``"length"``, ...).
        detail: what a person needs to know.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PacketError(_RefusedError):
    """Bytes that are not a packet."""


class FrameError(_RefusedError):
    """A RAW frame, or a chunk of one, that is not what it should be."""


class MessageError(_RefusedError):
    """A JSON message or a topic that does not follow the protocol."""


class ProfileError(_RefusedError):
    """A wearable that sends what its kind does not, or is asked for what it cannot do."""


class TraceError(GammawearError, ValueError):
    """A trace file that cannot be read or written."""


class DatasetError(GammawearError, ValueError):
    """A data set that is absent, incomplete or not in its published layout."""


class BundleError(GammawearError, ValueError):
    """A model bundle that is absent, damaged or does not fit together."""


class TrainingError(GammawearError, ValueError):
    """Training that cannot start or go on with what it was given."""


class ConnectError(GammawearError, ConnectionError):
    """A broker that cannot be reached or refuses us."""
