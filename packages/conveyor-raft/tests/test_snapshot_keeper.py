"""The keeper of snapshots over a store that refuses."""

from __future__ import annotations

import asyncio

import pytest

from conveyor_raft import (
    KeyValueCommand,
    KeyValueStateMachine,
    MemoryLogStorage,
    RaftConfig,
    RaftNode,
    snapshot_keeper,
)
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.errors import Failed
from conveyor_raft.snapshots import MemorySnapshots

pytestmark = pytest.mark.asyncio
put = KeyValueCommand.put


class FullSnapshots(MemorySnapshots):
    """No space is left, until `full` is False."""

    full = True

    async def put(self, meta: SnapshotMeta, data: bytes) -> None:
        if self.full:
            raise Failed("no space left on device")
        await super().put(meta, data)


async def test_a_snapshot_that_cannot_be_stored_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log stays whole, the node goes on, and another is built when there is space again."""
    monkeypatch.setattr(snapshot_keeper, "_RETRY_SECONDS", 0.0)
    storage = MemoryLogStorage()
    storage.snapshots = store = FullSnapshots()
    config = RaftConfig(node_id=1, snapshot_interval_entries=20, snapshot_trailing_entries=0)
    async with RaftNode(config, KeyValueStateMachine(), [], storage=storage) as node:
        await node.propose_many([put(f"k{n}", b"x") for n in range(50)])
        async with asyncio.timeout(5):
            while not node.statistics().get("snapshots_failed"):
                await node.propose(put("more", b"x"))
        assert node.status().snapshot_index == 0
        assert node.statistics()["log_entries"] > 50
        assert len(await node.state()) >= 50
        store.full = False
        async with asyncio.timeout(5):
            while not node.status().snapshot_index:
                await node.propose(put("more", b"x"))
                await asyncio.sleep(0)
