"""Who belongs to the cluster: the payload of CONFIG entries, and which of them is in force.

Rules kept: a configuration is in force from the moment its entry is appended, committed or not
(Raft §6); an entry that is cut off takes its configuration with it, so the history remembers the
one before. The encoding is deterministic: equal memberships are equal bytes, because every node of
a new cluster writes the first entry itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from conveyor_raft.core.types import Incarnation, LogIndex, Member, NodeId
from conveyor_raft.errors import Corrupt, InvariantViolation

_VERSION = 1
_HEADER = struct.Struct("<BI")
_NODE = struct.Struct("<QHHH")


@dataclass(frozen=True, slots=True)
class Membership:
    """The voters, ordered by id."""

    members: tuple[Member, ...]
    voters: tuple[NodeId, ...] = field(init=False, compare=False)
    _by_id: dict[NodeId, Member] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Order the members and refuse a membership that cannot decide anything."""
        members = tuple(sorted(self.members))
        by_id = {member.node_id: member for member in members}
        if not members or len(by_id) != len(members):
            raise ValueError(f"a membership needs at least one member, each id once: {members}")
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "voters", tuple(by_id))
        object.__setattr__(self, "_by_id", by_id)

    def get(self, node_id: NodeId) -> Member | None:
        """Return the member with this id."""
        return self._by_id.get(node_id)

    def encode(self) -> bytes:
        """Return the payload of the CONFIG entry."""
        parts = [_HEADER.pack(_VERSION, len(self.members))]
        for member in self.members:
            texts = (
                member.raft_address.encode(),
                member.client_address.encode(),
                member.incarnation,
            )
            parts.append(_NODE.pack(member.node_id, *map(len, texts)))
            parts.extend(texts)
        return b"".join(parts)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the membership of a CONFIG entry.

        Raises:
            Corrupt: the payload is none.
        """
        try:
            version, count = _HEADER.unpack_from(payload)
            if version != _VERSION:
                raise Corrupt(
                    f"the membership has version {version}, this release knows {_VERSION};"
                    " run the release that wrote it"
                )
            offset = _HEADER.size
            members = []
            for _ in range(count):
                node_id, *lengths = _NODE.unpack_from(payload, offset)
                offset += _NODE.size
                texts = []
                for length in lengths:
                    texts.append(payload[offset : offset + length])
                    offset += length
                raft, client, incarnation = texts
                members.append(
                    Member(
                        NodeId(node_id), raft.decode(), client.decode(), Incarnation(incarnation)
                    )
                )
            if offset != len(payload):
                raise Corrupt(f"the membership ends at byte {offset} of {len(payload)}")
            return cls(tuple(members))
        except (struct.error, ValueError) as error:
            raise Corrupt(f"a CONFIG entry holds no membership: {error}") from error


class MembershipHistory:
    """The configurations of the retained log, newest last; each with the index of its entry."""

    def __init__(self, entries: Iterable[tuple[LogIndex, Membership]] = ()) -> None:
        self._entries = list(entries)

    @property
    def active(self) -> Membership | None:
        """What is in force: the newest appended configuration; None on an empty node."""
        return self._entries[-1][1] if self._entries else None

    @property
    def entries(self) -> Sequence[tuple[LogIndex, Membership]]:
        """All that is remembered, oldest first."""
        return self._entries

    def at(self, index: LogIndex) -> Membership:
        """Return what was in force at the index."""
        for first, membership in reversed(self._entries):
            if first <= index:
                return membership
        raise InvariantViolation(f"no configuration was in force at index {index}")

    def append(self, index: LogIndex, membership: Membership) -> None:
        """Put a configuration into force."""
        self._entries.append((index, membership))

    def truncate_from(self, index: LogIndex) -> None:
        """Forget the configurations whose entries were cut off."""
        while self._entries and self._entries[-1][0] >= index:
            self._entries.pop()

    def compact(self, through: LogIndex) -> None:
        """Forget what was superseded at or below the index."""
        while len(self._entries) > 1 and self._entries[1][0] <= through:
            del self._entries[0]
