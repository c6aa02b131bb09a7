"""Nodes of one process reach each other by function calls: for tests and examples.

Rules kept: the same as over a network. A message is handed over in a later turn of the event loop,
in order, and never while the sender is at work; an address that was cut off loses messages in both
directions without telling anybody.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from conveyor_raft.core.messages import Message
from conveyor_raft.core.types import Identity, Member, NodeId
from conveyor_raft.errors import ListenError
from conveyor_raft.formation import Answer
from conveyor_raft.transport.base import EntryTrace, Receiver

_OUTBOX_MESSAGES_MAX = 10_000


class MemoryNetwork:
    """What the transports of one test share: who is where, and who is cut off."""

    def __init__(self) -> None:
        self._receivers: dict[str, Receiver] = {}
        self._cut_off: set[str] = set()

    def attach(self, address: str, receiver: Receiver) -> None:
        """Put a node at an address."""
        if address in self._receivers:
            raise ListenError(f"cannot listen on {address}: another node does")
        self._receivers[address] = receiver

    def detach(self, address: str) -> None:
        """Take the node away."""
        self._receivers.pop(address, None)

    def cut_off(self, address: str) -> None:
        """Lose everything that goes to or comes from the address."""
        self._cut_off.add(address)

    def restore(self, address: str) -> None:
        """End `cut_off`."""
        self._cut_off.discard(address)

    def find(self, origin: str, target: str) -> Receiver | None:
        """Return the node at the target, if there is one and it can be reached."""
        if self._cut_off & {origin, target}:
            return None
        return self._receivers.get(target)


class MemoryTransport:
    """A `RaftTransport` within one process."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self._network = network
        self._address = address
        self._receiver: Receiver | None = None
        self._identity: Identity | None = None
        self._addresses: dict[NodeId, str] = {}
        self._outbox: deque[tuple[Message, Sequence[EntryTrace]]] = deque()
        self._counters: Counter[str] = Counter()

    async def start(self, receiver: Receiver) -> str:
        """Take the address."""
        self._network.attach(self._address, receiver)
        self._receiver = receiver
        return self._address

    async def hello(self, address: str, own: Member) -> Answer:
        """Ask who is there."""
        await asyncio.sleep(0)
        receiver = self._network.find(self._address, address)
        if receiver is None:
            raise ConnectionError("nobody is there")
        answer = receiver.hello(own)
        if answer is None:
            raise ConnectionError("it has not started yet")
        return answer

    def connect(self, identity: Identity, members: Sequence[Member]) -> None:
        """Remember where the members are."""
        self._identity = identity
        before = set(self._addresses)
        self._addresses = {
            member.node_id: member.raft_address
            for member in members
            if member.node_id != identity.node_id
        }
        if self._receiver is not None:
            for peer in self._addresses.keys() - before:
                self._receiver.peer_changed(peer, up=True)

    def send(self, message: Message, traces: Sequence[EntryTrace] = ()) -> None:
        """Hand the message over in a later turn of the loop."""
        if len(self._outbox) >= _OUTBOX_MESSAGES_MAX:
            self._outbox.popleft()
            self._counters["messages_dropped"] += 1
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._outbox.append((message, traces))

    async def send_snapshot(self, message: Message, data: bytes) -> None:
        """Hand the snapshot over."""
        await asyncio.sleep(0)
        receiver = self._target(message)
        if receiver is None:
            raise ConnectionError(f"node {message.to} cannot be reached")
        await receiver.receive_snapshot(message, data)

    async def close(self) -> None:
        """Leave the address."""
        if self._receiver is not None:
            self._network.detach(self._address)
            self._receiver = None
        self._addresses.clear()

    def statistics(self) -> Mapping[str, int]:
        """Return counters since the start."""
        return dict(self._counters)

    def _deliver(self) -> None:
        outbox, self._outbox = self._outbox, deque()
        for message, traces in outbox:
            receiver = self._target(message)
            if receiver is None:
                self._counters["messages_dropped"] += 1
                continue
            self._counters["messages_sent"] += 1
            receiver.receive([message], traces)

    def _target(self, message: Message) -> Receiver | None:
        address = self._addresses.get(message.to)
        receiver = None if address is None else self._network.find(self._address, address)
        identity = None if receiver is None else receiver.identity()
        if identity is None or identity.node_id != message.to:
            return None
        if identity.cluster_id != message.cluster_id:
            self._counters["refused_foreign"] += 1
            return None
        return receiver
