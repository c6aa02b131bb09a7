"""What can be wrong with bytes that claim to be a frame or a message with records."""

from __future__ import annotations


class MalformedFrame(ValueError):  # noqa: N818 - it names what the bytes are
    """The bytes are not a frame: a column has the wrong size, or the lengths do not add up to the
    body.

    Nothing of it was used. The sender is broken or not ours: drop the connection, do not retry the
    same bytes.
    """


class MalformedMessage(ValueError):  # noqa: N818 - it names what the bytes are
    """The bytes are not the protobuf message that was expected, or one of its records is not a
    record.

    The text names the message. It is the answer of a service: treat it as a failure of the whole
    call.
    """
