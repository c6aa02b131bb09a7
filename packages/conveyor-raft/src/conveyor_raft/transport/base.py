"""The port to the other nodes.

Rules kept: sending never waits and may lose, duplicate or reorder messages, which Raft allows; what
waits for one peer is bounded, and one dead peer delays no other; a snapshot travels apart from the
messages; nothing of another cluster, or from somebody else than it claims, reaches the receiver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from conveyor_raft.core.messages import Message
from conveyor_raft.core.types import Identity, LogIndex, Member, NodeId
from conveyor_raft.formation import Answer


class EntryTrace(NamedTuple):
    """The W3C trace parent of one entry, for the few entries that are traced."""

    entry_index: LogIndex
    traceparent: str


class Receiver(Protocol):
    """The node, as its transport sees it. None of the plain methods may wait."""

    def hello(self, asker: Member) -> Answer | None:
        """Say who this node is; None until it knows."""
        ...

    def identity(self) -> Identity | None:
        """Return who this node is within its cluster, or None while it has none."""
        ...

    def receive(self, messages: Sequence[Message], traces: Sequence[EntryTrace] = ()) -> None:
        """Take messages of one peer, in the order in which it sent them."""
        ...

    async def receive_snapshot(self, message: Message, data: bytes) -> None:
        """Keep the snapshot durably, and hand the message over; raise to refuse it."""
        ...

    def peer_changed(self, peer: NodeId, *, up: bool) -> None:
        """The connection to a peer came up or went down."""
        ...

    def transport_failed(self, error: BaseException) -> None:
        """Something that must not go wrong has gone wrong in the transport: stop the node."""
        ...


class RaftTransport(Protocol):
    """How one node reaches the others."""

    async def start(self, receiver: Receiver) -> str:
        """Begin to listen; return the address that the others can use.

        Raises:
            ListenError: the address cannot be bound.
        """
        ...

    async def hello(self, address: str, own: Member) -> Answer:
        """Ask who is there; raise `OSError` with the reason if nobody answers in time."""
        ...

    def connect(self, identity: Identity, members: Sequence[Member]) -> None:
        """Keep a connection to each of these members, itself left out, and to nobody else."""
        ...

    def send(self, message: Message, traces: Sequence[EntryTrace] = ()) -> None:
        """Send a message to its addressee, soon or never."""
        ...

    async def send_snapshot(self, message: Message, data: bytes) -> None:
        """Return when the peer holds all of it; raise `OSError` if it does not."""
        ...

    async def close(self) -> None:
        """Stop listening and let go of every peer. Safe to call twice."""
        ...

    def statistics(self) -> Mapping[str, int]:
        """Return counters since the start."""
        ...
