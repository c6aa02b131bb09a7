"""Who belongs to the cluster: the payload of CONFIG entries, and which of them is in force.

Rules kept: a configuration is in force from the moment its entry is appended, committed or not
(Raft §6); an entry that is cut off takes its configuration with it, so the history remembers the
one before. The encoding is deterministic: equal memberships are equal bytes, because every node of
a new cluster writes the first entry itself.

A member is a voter, or a learner, to whom everything is replicated and who is not counted. In a
joint configuration (`outgoing` is not empty) the voters of the configuration before still count, in
a half of their own, whatever becomes of them afterwards; `settled` is the configuration that
follows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from conveyor_raft.core.types import (
    ZERO_ID,
    Incarnation,
    LogId,
    LogIndex,
    Member,
    NodeId,
    Term,
)
from conveyor_raft.errors import Corrupt, InvariantViolation

_PLAIN = 1
_VERSION = 2
_HEADER = struct.Struct("<BI")
_CHANGED = struct.Struct("<QQ")
_NODE = struct.Struct("<QHHH")
_PART = struct.Struct("<B")
_LEARNER, _OUTGOING, _LEAVING = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Membership:
    """The members, ordered by id; who is not named in `learners` or `leaving` is a voter.

    `outgoing` are the voters of the configuration that is being left, empty unless joint; `leaving`
    those of them who are no members afterwards. `version` is the id of the entry that brought this
    configuration, `ZERO_ID` for the first: two configurations never share one.
    """

    members: tuple[Member, ...]
    learners: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()
    leaving: tuple[NodeId, ...] = ()
    version: LogId = ZERO_ID
    voters: tuple[NodeId, ...] = field(init=False, compare=False)
    halves: tuple[tuple[NodeId, ...], ...] = field(init=False, compare=False)
    electors: tuple[NodeId, ...] = field(init=False, compare=False)
    _by_id: dict[NodeId, Member] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Order the members and refuse a membership that cannot decide anything."""
        members = tuple(sorted(self.members))
        by_id = {member.node_id: member for member in members}
        if not members or len(by_id) != len(members):
            raise ValueError(f"a membership needs at least one member, each id once: {members}")
        for name in ("learners", "outgoing", "leaving"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        idle = {*self.learners, *self.leaving}
        voters = tuple(node_id for node_id in by_id if node_id not in idle)
        if (
            not voters
            or not by_id.keys() >= {*idle, *self.outgoing}
            or not {*self.outgoing} >= {*self.leaving}
            or {*self.learners} & {*self.leaving}
        ):
            raise ValueError(
                f"the parts of a membership contradict each other: {tuple(by_id)}, learners"
                f" {self.learners}, outgoing {self.outgoing}, leaving {self.leaving}"
            )
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "voters", voters)
        object.__setattr__(self, "halves", (voters, self.outgoing) if self.outgoing else (voters,))
        electors = tuple(node_id for node_id in by_id if node_id in {*voters, *self.outgoing})
        object.__setattr__(self, "electors", electors)
        object.__setattr__(self, "_by_id", by_id)

    @property
    def joint(self) -> bool:
        """Whether two halves decide."""
        return bool(self.outgoing)

    def get(self, node_id: NodeId) -> Member | None:
        """Return the member with this id."""
        return self._by_id.get(node_id)

    def settled(self, version: LogId) -> Membership:
        """Return the configuration that follows a joint one."""
        stay = tuple(member for member in self.members if member.node_id not in self.leaving)
        return Membership(stay, self.learners, version=version)

    def encode(self) -> bytes:
        """Return the payload of the CONFIG entry.

        A membership of voters alone, as a cluster is formed with, is written as it always was.
        """
        plain = not self.learners and not self.outgoing and self.version == ZERO_ID
        parts = [_HEADER.pack(_PLAIN if plain else _VERSION, len(self.members))]
        if not plain:
            parts.append(_CHANGED.pack(*self.version))
        for member in self.members:
            texts = (
                member.raft_address.encode(),
                member.client_address.encode(),
                member.incarnation,
            )
            parts.append(_NODE.pack(member.node_id, *map(len, texts)))
            if not plain:
                parts.append(_PART.pack(self._flags(member.node_id)))
            parts.extend(texts)
        return b"".join(parts)

    def _flags(self, node_id: NodeId) -> int:
        return (
            (node_id in self.learners) * _LEARNER
            | (node_id in self.outgoing) * _OUTGOING
            | (node_id in self.leaving) * _LEAVING
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the membership of a CONFIG entry.

        Raises:
            Corrupt: the payload is none.
        """
        try:
            version, count = _HEADER.unpack_from(payload)
            if version not in {_PLAIN, _VERSION}:
                raise Corrupt(
                    f"the membership has version {version}, this release knows {_VERSION};"
                    " run the release that wrote it"
                )
            offset = _HEADER.size
            changed = ZERO_ID
            if version != _PLAIN:
                index, term = _CHANGED.unpack_from(payload, offset)
                changed = LogId(LogIndex(index), Term(term))
                offset += _CHANGED.size
            members: list[Member] = []
            flags: dict[NodeId, int] = {}
            for _ in range(count):
                node_id, *lengths = _NODE.unpack_from(payload, offset)
                offset += _NODE.size
                if version != _PLAIN:
                    (flags[NodeId(node_id)],) = _PART.unpack_from(payload, offset)
                    offset += _PART.size
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
            learners, outgoing, leaving = (
                tuple(node_id for node_id, own in flags.items() if own & flag)
                for flag in (_LEARNER, _OUTGOING, _LEAVING)
            )
            return cls(tuple(members), learners, outgoing, leaving, changed)
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
    def active_since(self) -> LogIndex:
        """The entry that brought what is in force, or the snapshot that holds it."""
        return self._entries[-1][0] if self._entries else LogIndex(0)

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
