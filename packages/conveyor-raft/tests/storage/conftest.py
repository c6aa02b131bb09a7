"""What the storage tests share: frames, memberships, first states."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import EntryKind, LogIndex, Member, NodeId, Term


@pytest.fixture
def membership() -> Membership:
    return Membership((Member(NodeId(1), "n1:1", "c1:1"), Member(NodeId(2), "n2:1")))


@pytest.fixture
def frame() -> Callable[..., Frame]:
    def build(first: int, count: int = 1, term: int = 1, text: str = "entry") -> Frame:
        payloads = [f"{text} {first + n}".encode() for n in range(count)]
        return Frame.build(LogIndex(first), Term(term), 1000 + first, EntryKind.COMMAND, payloads)

    return build
