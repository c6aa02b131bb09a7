"""What every `LogStorage` promises; each test closes and opens again, as a restart would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import ClusterId, HardState, LogIndex, NodeId, Term
from conveyor_raft.errors import Corrupt, Locked, WrongIdentity
from conveyor_raft.storage.base import LogStorage, Stored
from conveyor_raft.storage.memory import MemoryLogStorage
from conveyor_raft.storage.sqlite import SQLiteLogStorage

pytestmark = pytest.mark.asyncio
MakeFrame = Callable[..., Frame]
Reopen = Callable[[], Awaitable[Stored]]
CLUSTER = ClusterId(b"c" * 32)


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> LogStorage:
    return MemoryLogStorage() if request.param == "memory" else SQLiteLogStorage(tmp_path / "data")


def append(*frames: Frame, cut: int | None = None, snapshot: SnapshotMeta | None = None) -> Write:
    return Write(1, None, snapshot, None if cut is None else LogIndex(cut), frames)


async def reopened(storage: LogStorage) -> Stored:
    """Close, open as the same node, and leave it open."""
    await storage.close()
    return await storage.open(1)


def entries(stored: Stored) -> list[tuple[int, int, bytes]]:
    return [
        (entry.index, entry.term, entry.payload)
        for frame in stored.loaded.frames
        for entry in frame.entries()
    ]


def meta_at(index: int, term: int, membership: Membership) -> SnapshotMeta:
    return SnapshotMeta(LogIndex(index), Term(term), 5, membership)


async def test_a_new_storage_is_empty_and_draws_an_incarnation(storage: LogStorage) -> None:
    """No cluster, no log, no vote; and the incarnation stays the same."""
    stored = await storage.open(1)
    assert (stored.cluster_id, stored.loaded) == (None, LoadedState())
    assert len(stored.incarnation) == 16
    assert (await reopened(storage)).incarnation == stored.incarnation
    await storage.close()


async def test_the_first_state_is_kept_with_the_cluster(
    storage: LogStorage, frame: MakeFrame
) -> None:
    """`form` is one step: cluster id, vote and first entry."""
    await storage.open(1)
    first = LoadedState(HardState(Term(1), None), None, (frame(1),))
    await storage.form(CLUSTER, first)
    stored = await reopened(storage)
    assert (stored.cluster_id, stored.loaded) == (CLUSTER, first)
    await storage.close()


async def test_appended_frames_and_votes_are_read_back(
    storage: LogStorage, frame: MakeFrame
) -> None:
    """Everything a write holds is there after a restart, in order."""
    await storage.open(1)
    await storage.write(Write(1, HardState(Term(3), NodeId(2)), None, None, (frame(1, 3),)))
    await storage.write(append(frame(4), frame(5, 2, term=2)))
    loaded = (await reopened(storage)).loaded
    assert loaded.hard_state == HardState(Term(3), NodeId(2))
    assert loaded.frames == (frame(1, 3), frame(4), frame(5, 2, term=2))
    await storage.write(append(frame(7, term=2)))
    assert len((await reopened(storage)).loaded.frames) == 4
    await storage.close()


@pytest.mark.parametrize("cut", range(1, 9))
async def test_a_cut_replaces_exactly_what_it_names(
    storage: LogStorage, frame: MakeFrame, cut: int
) -> None:
    """Entries from the cut on go, those before stay, also inside a frame and inside a row."""
    await storage.open(1)
    await storage.write(append(frame(1, 2), frame(3, 3)))
    await storage.write(append(frame(6, 2)))
    await storage.maintain(idle=True)
    before = entries(await reopened(storage))
    await storage.write(append(frame(cut, 2, term=9, text="new"), cut=cut))
    after = entries(await reopened(storage))
    new = [(index, 9, f"new {index}".encode()) for index in (cut, cut + 1)]
    assert after == before[: cut - 1] + new
    await storage.write(append(frame(cut + 2, term=9)))
    assert len(entries(await reopened(storage))) == cut + 2
    await storage.close()


async def test_compaction_forgets_only_what_it_may(
    storage: LogStorage, frame: MakeFrame, membership: Membership
) -> None:
    """What lies behind the index may go, nothing else may."""
    await storage.open(1)
    for index in range(1, 6):
        await storage.write(append(frame(index)))
    meta = meta_at(4, 1, membership)
    await storage.snapshots.put(meta, b"state")
    await storage.write(append(snapshot=meta))
    await reopened(storage)
    await storage.compact(LogIndex(3))
    stored = await reopened(storage)
    assert stored.loaded.snapshot == meta
    assert [index for index, _, _ in entries(stored)] == [4, 5]
    await storage.write(append(frame(6)))
    assert [index for index, _, _ in entries(await reopened(storage))] == [4, 5, 6]
    await storage.close()


@pytest.mark.parametrize("case", [(9, 2, 0), (2, 7, 0), (2, 1, 3), (5, 1, 3)])
async def test_a_snapshot_drops_a_log_that_ends_before_or_disagrees(
    storage: LogStorage,
    frame: MakeFrame,
    membership: Membership,
    case: tuple[int, int, int],
) -> None:
    """The log survives only if it contains the snapshot's last entry in the same term."""
    index, term, left = case
    await storage.open(1)
    await storage.write(append(frame(1, 2), frame(3), frame(4, 2)))
    meta = meta_at(index, term, membership)
    await storage.snapshots.put(meta, b"state")
    await storage.write(append(snapshot=meta))
    stored = await reopened(storage)
    assert stored.loaded.snapshot == meta
    assert len(stored.loaded.frames) == left
    assert await storage.snapshots.get(meta) == b"state"
    following = 6 if left else index + 1
    await storage.write(append(frame(following, term=7)))
    assert len((await reopened(storage)).loaded.frames) == left + 1
    await storage.close()


async def test_an_older_snapshot_never_replaces_a_newer(
    storage: LogStorage, membership: Membership
) -> None:
    """Two transfers may cross; the newest one counts."""
    await storage.open(1)
    new, old = meta_at(9, 2, membership), meta_at(5, 1, membership)
    for meta in (new, old):
        await storage.snapshots.put(meta, b"state")
        await storage.write(append(snapshot=meta))
    assert (await reopened(storage)).loaded.snapshot == new
    await storage.close()


async def test_pruning_keeps_the_named_snapshot(
    storage: LogStorage, membership: Membership
) -> None:
    """Older ones go, the named one and newer ones stay."""
    await storage.open(1)
    metas = [meta_at(index, 1, membership) for index in (3, 5, 7)]
    for meta in metas:
        await storage.snapshots.put(meta, str(meta.index).encode())
    await storage.snapshots.prune(metas[1])
    assert await storage.snapshots.get(metas[1]) == b"5"
    assert await storage.snapshots.get(metas[2]) == b"7"
    with pytest.raises(Corrupt):
        await storage.snapshots.get(metas[0])
    await storage.close()


async def test_a_second_opener_is_refused(storage: LogStorage) -> None:
    """One process at a time."""
    await storage.open(1)
    other = storage if isinstance(storage, MemoryLogStorage) else None
    if isinstance(storage, SQLiteLogStorage):
        other = SQLiteLogStorage(storage.directory)
    assert other is not None
    with pytest.raises(Locked):
        await other.open(1)
    await storage.close()


async def test_another_nodes_storage_is_refused(storage: LogStorage) -> None:
    """The directory of node 1 is not for node 2; node 1 still gets it afterwards."""
    await storage.open(1)
    await storage.close()
    with pytest.raises(WrongIdentity, match=r"belongs to node 1"):
        await storage.open(2)
    await storage.open(1)
    await storage.close()
