"""The driver: the one loop in which anything is fed to the core, and the order of its effects.

What for: the core decides (`core.raft_core`), the driver performs. The order is written here once
(`_turn`, `_perform`): messages that wait for nothing leave first, the write goes to the storage
lane, what depends on a write leaves when that write is durable, what is committed goes to the apply
lane, and callers and watchers hear of it.

Rules kept:

* One owner. Whatever happens elsewhere (a message, a finished flush, a timer) is queued as an input
  and wakes the owner; everything queued shares one turn, one write, and one message for each peer.
* A proposal costs a future and a place in a list, never a task.
* Whatever raises here ends the node; nothing is caught and forgotten.

Theory: Ongaro, "Consensus: Bridging Theory and Practice" (2014), §10.2, for the batching.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from conveyor_raft.applier import Applier, Work
from conveyor_raft.config import RaftConfig
from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import AppendEntries, Message, SnapshotMeta
from conveyor_raft.core.output import Output, SoftState
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import (
    Identity,
    LogIndex,
    Member,
    NodeId,
    Proposed,
    RaftRole,
)
from conveyor_raft.errors import ShuttingDown
from conveyor_raft.machines.base import StateMachine
from conveyor_raft.member_changes import MemberChanges
from conveyor_raft.questions import Questions
from conveyor_raft.refusals import Refusals
from conveyor_raft.snapshot_keeper import SnapshotKeeper
from conveyor_raft.status import Applied, LeadershipChanged
from conveyor_raft.storage.base import LogStorage
from conveyor_raft.storage.lane import StorageLane
from conveyor_raft.telemetry import TraceMarks
from conveyor_raft.transport.base import EntryTrace, RaftTransport
from conveyor_raft.waiters import ResultFuture, Waiters, fail
from conveyor_raft.watch import Watchers

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")

_logger = logging.getLogger(__name__)

_INBOX_MAX = 16_384

_Waiting = tuple[bytes, ResultFuture, str | None]


class Driver(Generic[C, R, S]):
    """Runs one core, from the moment its node belongs to a cluster."""

    def __init__(
        self,
        config: RaftConfig,
        identity: Identity,
        loaded: LoadedState,
        *,
        state_machine: StateMachine[C, R, S],
        storage: LogStorage,
        transport: RaftTransport,
        watchers: Watchers,
        meet: Callable[[Sequence[Member]], None],
    ) -> None:
        """Prepare. `meet` is told of the members, now and whenever they change."""
        self.identity = identity
        self._loop = asyncio.get_running_loop()
        self.connected: set[NodeId] = set()
        self.counters: Counter[str] = Counter()
        self.core = RaftCore(
            identity, config.core_options(), random.Random(), loaded, self._now_ms()
        )
        self._config = config
        self._storage = storage
        self._transport = transport
        self._watchers = watchers
        self._meet = meet
        self._contacts: tuple[Member, ...] = ()
        self._refusals = Refusals(self.core, identity.node_id)
        self._changes = MemberChanges(self.core, self._refusals.not_leader)
        self._waiters = Waiters()
        self._marks = TraceMarks(identity.node_id)
        self.applier = Applier[C, R, S](state_machine, self._waiters, self._marks, self._applied)
        self._lane = StorageLane(storage, self._written)
        self._inbox: deque[Callable[[], object]] = deque()
        self._proposals: list[_Waiting] = []
        self._proposal_bytes = 0
        self._tokens = 0
        self.questions = Questions(self.core, self._feed, self._refusals.explain)
        self._after_write: deque[tuple[int, Message]] = deque()
        self._durable_write = 0
        self._wake: asyncio.Future[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._snapshots = SnapshotKeeper(
            self.core,
            self.applier,
            storage,
            lane=self._lane,
            transport=transport,
            feed=self._feed,
            spawn=self._spawn,
            counters=self.counters,
        )

    async def run(self) -> None:
        """Drive until cancelled, or until something fails that must not."""
        self._transport.connect(self.identity, self._contacts)
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._lane.run(), name="raft storage lane")
            group.create_task(self.applier.run(self._storage.snapshots), name="raft apply lane")
            while True:
                self._turn()
                await self._sleep()

    @property
    def members(self) -> tuple[Member, ...]:
        """The membership in force."""
        membership = self.core.membership
        return () if membership is None else membership.members

    def member(self, node_id: NodeId | None) -> Member | None:
        """Return a member by its id."""
        membership = self.core.membership
        return None if node_id is None or membership is None else membership.get(node_id)

    def leadership(self) -> LeadershipChanged:
        """Return the level that watchers see."""
        return LeadershipChanged(self.core.role, self.core.term, self.core.leader_id)

    # ------------------------------------------------------------------ inputs

    def propose(self, payload: bytes, traceparent: str | None = None) -> ResultFuture:
        """Queue one command for the next turn; refuse at once what cannot be accepted."""
        if self.core.role is not RaftRole.LEADER:
            raise self._refusals.not_leader()
        config = self._config
        if (
            len(self._proposals) >= config.max_uncommitted_entries
            or self._proposal_bytes + len(payload) > config.max_uncommitted_bytes
        ):
            raise self._refusals.busy()
        future: ResultFuture = self._loop.create_future()
        self._proposals.append((payload, future, traceparent))
        self._proposal_bytes += len(payload)
        self._rouse()
        return future

    def change_membership(self, change: MembershipChange) -> asyncio.Future[None]:
        """Queue a change of the membership; it ends when it is in force for good."""
        if self.core.role is not RaftRole.LEADER:
            raise self._refusals.not_leader()
        future: asyncio.Future[None] = self._loop.create_future()
        self._tokens += 1
        self._feed(partial(self._changes.begin, change, self._tokens, future))
        return future

    def introduce(self, members: Sequence[Member]) -> None:
        """Connect to these members at first, until the log says who they are."""
        self._contacts = tuple(members)

    def receive(self, messages: Sequence[Message], traces: Sequence[EntryTrace] = ()) -> None:
        """Queue messages of a peer."""
        if len(self._inbox) + len(messages) > _INBOX_MAX:
            self.counters["messages_overrun"] += len(messages)
            return
        if traces:
            self._marks.add(traces, appending=True)
        step = self.core.step
        self._inbox.extend([partial(step, message) for message in messages])
        self._rouse()

    async def receive_snapshot(self, message: Message, data: bytes) -> None:
        """Take a snapshot of the leader."""
        await self._snapshots.receive(message, data)

    def peer_changed(self, peer: NodeId, *, up: bool) -> None:
        """Note that a connection came up or went down."""
        (self.connected.add if up else self.connected.discard)(peer)
        self._feed(partial(self.core.on_peer, peer, up=up))

    def abandon(self, reason: str) -> None:
        """Tell everybody who waits that nothing more will happen here."""
        fail([future for _, future, _ in self._proposals], ShuttingDown(reason))
        self._proposals.clear()
        self._waiters.fail_all(reason)
        self._changes.abandon(reason)
        self.questions.fail_all(ShuttingDown(reason))

    # ------------------------------------------------------------------ the loop

    def _feed(self, function: Callable[[], object]) -> None:
        """Queue an input of the core."""
        self._inbox.append(function)
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _sleep(self) -> None:
        """Wait for an input, or for the core's next deadline."""
        if self._inbox or self._proposals:
            await asyncio.sleep(0)
            return
        loop = self._loop
        wake = self._wake = loop.create_future()
        deadline = self.core.next_deadline
        # A tenth of a millisecond later, so that the clock surely shows the deadline.
        timer = None if deadline is None else loop.call_at((deadline + 0.1) / 1000, self._rouse)
        try:
            await wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _turn(self) -> None:
        """Feed everything that is queued to the core, and perform what it wants done."""
        core, inbox = self.core, self._inbox
        core.tick(self._now_ms())
        for _ in range(len(inbox)):
            inbox.popleft()()
        if self._proposals:
            self._submit()
        self._perform(core.take(write=not self._lane.busy))
        self._snapshots.take_if_due()

    def _submit(self) -> None:
        """Hand the queued proposals to the core, in pieces of one frame each."""
        waiting, self._proposals, self._proposal_bytes = self._proposals, [], 0
        start = size = 0
        for position, (payload, _, _) in enumerate(waiting):
            if size + len(payload) > self._config.max_batch_bytes and position > start:
                self._submit_frame(waiting[start:position])
                start, size = position, 0
            size += len(payload) + 4
        self._submit_frame(waiting[start:])

    def _submit_frame(self, batch: list[_Waiting]) -> None:
        self._tokens += 1
        payloads = [payload for payload, _, _ in batch]
        futures = [future for _, future, _ in batch]
        wall_ms = time.time_ns() // 1_000_000
        answer = self.core.propose(payloads, wall_ms=wall_ms, token=self._tokens)
        if isinstance(answer, Proposed):
            self.counters["proposals"] += len(batch)
            self._waiters.add(self._tokens, answer, futures)
            traces = [
                EntryTrace(LogIndex(answer.first_index + offset), traceparent)
                for offset, (_, _, traceparent) in enumerate(batch)
                if traceparent is not None
            ]
            self._marks.add(traces, appending=False)
            return
        self.counters["proposals_refused"] += len(batch)
        fail(futures, self._refusals.explain(answer))

    def _perform(self, out: Output) -> None:
        """Do what the core wants done, in the order that `core.output` prescribes."""
        self._reconnect()
        for message in out.messages:
            self._send(message)
        if out.write is not None:
            self._lane.submit(out.write)
        for write_id, message in out.messages_after:
            if write_id <= self._durable_write:  # It ended while the core was still waiting.
                self._send(message)
            else:
                self._after_write.append((write_id, message))
        if out.install is not None:
            self.applier.add(out.install)
        if out.apply is not None:
            first, last = out.apply
            self.applier.add((first, last, self.core.frames(first, last)))
        for send in out.send_snapshot:
            self._snapshots.send(send)
        for token, outcome in out.finished:
            if not self._changes.finish(token, outcome):
                self._waiters.finish(token, outcome)
        self.questions.answer_reads(out.reads)
        self.questions.answer_transfers(out.transfers)
        if out.soft is not None:
            self._tell(out.soft)
        if out.compact_through is not None:
            self._lane.add_chore(partial(self._storage.compact, out.compact_through))

    # ------------------------------------------------------------------ effects

    def _reconnect(self) -> None:
        """Keep connections to the members, and to those who go and are still needed."""
        contacts = self.core.contacts
        if contacts and contacts != self._contacts:
            self._contacts = contacts
            self._transport.connect(self.identity, contacts)
            self._meet(self.members)

    def _send(self, message: Message) -> None:
        traces: Sequence[EntryTrace] = ()
        if self._marks and isinstance(message.body, AppendEntries):
            traces = self._marks.of(message.body.frames)
        self._transport.send(message, traces)

    def _written(self, write_id: int) -> None:
        """A write is durable: release what waited for it, and tell the core."""
        self._durable_write = write_id
        after = self._after_write
        while after and after[0][0] <= write_id:
            self._send(after.popleft()[1])
        self._feed(partial(self._on_written, write_id))

    def _on_written(self, write_id: int) -> None:
        self.core.on_written(write_id)
        if self._marks:
            self._marks.appended(self.core.durable_index)

    def _applied(self, work: Work) -> None:
        """The apply lane has done a piece of work."""
        if isinstance(work, SnapshotMeta):
            self._snapshots.installed(work)
        else:
            self._feed(partial(self.core.on_applied, work[1]))
        self._watchers.notify(Applied(self.applier.index))

    def _tell(self, soft: SoftState) -> None:
        level = LeadershipChanged(soft.role, soft.term, soft.leader_id)
        _logger.info(
            "node %s is %s in term %s, leader: %s",
            self.identity.node_id,
            soft.role.value,
            soft.term,
            soft.leader_id,
        )
        self.counters["leadership_changes"] += 1
        self._watchers.notify(level)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(coroutine)

    def statistics(self) -> dict[str, int]:
        """Counters since the start, of the driver, the core and the transport."""
        own = {"flushes": self._lane.flushes, **self.counters}
        return {**self.core.statistics(), **self._transport.statistics(), **own}

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)
