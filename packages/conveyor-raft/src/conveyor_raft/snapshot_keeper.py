"""The keeper of snapshots: takes them, has them kept, and sends them to followers that are late.

Rules kept: a snapshot is captured between two entries, in one turn of the loop; it counts once its
bytes and the storage's reference to it are durable, and only then is the log behind it freed and
the one before it deleted; at most one is being kept at a time. If the disk refuses one, nothing is
lost but space, and another is tried later.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from conveyor_raft.applier import Applier
from conveyor_raft.core.messages import InstallSnapshot, Message, SnapshotMeta
from conveyor_raft.core.output import SnapshotSend, Write
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.errors import Corrupt, StorageError
from conveyor_raft.storage.base import LogStorage
from conveyor_raft.storage.lane import StorageLane
from conveyor_raft.transport.base import RaftTransport

_logger = logging.getLogger(__name__)

_RETRY_SECONDS = 30.0


class SnapshotKeeper:
    """Works for one driver: `feed` queues an input of its core, `spawn` runs a task for it."""

    def __init__(
        self,
        core: RaftCore,
        applier: Applier[Any, Any, Any],
        storage: LogStorage,
        *,
        lane: StorageLane,
        transport: RaftTransport,
        feed: Callable[[Callable[[], object]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        counters: Counter[str],
    ) -> None:
        self._core = core
        self._applier = applier
        self._storage = storage
        self._lane = lane
        self._transport = transport
        self._feed = feed
        self._spawn = spawn
        self._counters = counters
        self._retry_after = 0.0
        self._keeping = False

    def take_if_due(self) -> None:
        """Capture the state, if it is time and the state machine stands between two entries."""
        if not self._core.snapshot_due or self._keeping or not self._applier.idle:
            return
        index = self._core.applied_index
        if self._applier.index != index or time.monotonic() < self._retry_after:
            return
        self._keeping = True
        meta = self._core.describe_snapshot(index)
        self._spawn(self._keep(meta, self._applier.state_machine.snapshot()))

    def send(self, send: SnapshotSend) -> None:
        """Send the newest snapshot to a peer; the core learns how that ended."""
        self._spawn(self._send(send))

    async def receive(self, message: Message, data: bytes) -> None:
        """Keep a snapshot that arrived whole, then hand over what announces it."""
        assert isinstance(message.body, InstallSnapshot)
        meta = message.body.meta
        if meta.index > self._core.commit_index:
            await self._storage.snapshots.put(meta, data)
        self._feed(partial(self._core.step, message))

    def installed(self, meta: SnapshotMeta) -> None:
        """A snapshot of the leader is in the state machine now."""
        self._feed(partial(self._core.on_snapshot_installed, meta))
        self._lane.add_chore(partial(self._storage.snapshots.prune, meta))
        self._counters["snapshots_installed"] += 1
        _logger.info("restored the snapshot at index %s from the leader", meta.index)

    async def _keep(self, meta: SnapshotMeta, data: bytes) -> None:
        try:
            await self._storage.snapshots.put(meta, data)
        except StorageError as error:
            # The log is whole and the snapshot before it as well: nothing is lost but space.
            _logger.error("no snapshot at index %s, trying again later: %s", meta.index, error)
            self._counters["snapshots_failed"] += 1
            self._retry_after = time.monotonic() + _RETRY_SECONDS
            self._keeping = False
            return
        self._lane.add_chore(partial(self._adopt, meta))

    async def _adopt(self, meta: SnapshotMeta) -> None:
        await self._storage.write(Write(0, None, meta, None, ()))
        self._feed(partial(self._on_created, meta))

    def _on_created(self, meta: SnapshotMeta) -> None:
        self._core.on_snapshot_created(meta)
        # Not before: until now the core may have asked for the older one to be sent.
        self._lane.add_chore(partial(self._storage.snapshots.prune, meta))
        self._counters["snapshots_created"] += 1
        self._keeping = False

    async def _send(self, send: SnapshotSend) -> None:
        delivered = False
        body = send.message.body
        assert isinstance(body, InstallSnapshot)
        try:
            meta, data = await self._newest(send.meta)
            message = send.message._replace(body=body._replace(meta=meta))
            await self._transport.send_snapshot(message, data)
            delivered = True
        except OSError as error:
            _logger.warning("the snapshot did not reach node %s: %s", send.peer, error)
        sent = partial(self._core.on_snapshot_sent, send.peer, send.session, delivered=delivered)
        self._feed(sent)

    async def _newest(self, meta: SnapshotMeta) -> tuple[SnapshotMeta, bytes]:
        """Return the bytes of the node's snapshot, which may be replaced while they are read."""
        while True:
            meta = self._core.snapshot or meta
            try:
                return meta, await self._storage.snapshots.get(meta)
            except Corrupt:
                if self._core.snapshot == meta:
                    raise
