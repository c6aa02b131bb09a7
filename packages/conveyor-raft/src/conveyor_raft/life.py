"""The life of a node: its disk, its port, its cluster, and what ends it.

Rules kept: the disk is opened before the port is bound, so nobody is answered by a node that may
not exist; the first thing that fails decides why the node stopped; whatever ends it, everybody who
waits is told, and disk and port are released.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from conveyor_raft.config import RaftConfig
from conveyor_raft.core.loading import first_state
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import Message
from conveyor_raft.core.types import Identity, LogIndex, Member, NodeId, RaftRole
from conveyor_raft.driver import Driver
from conveyor_raft.errors import (
    FormationError,
    NodeStopped,
    NotReady,
    RaftError,
    ShuttingDown,
    WrongIdentity,
)
from conveyor_raft.formation import Answer
from conveyor_raft.machines.base import StateMachine
from conveyor_raft.network import RaftNetwork
from conveyor_raft.status import Applied
from conveyor_raft.storage.base import LogStorage, Stored
from conveyor_raft.storage.memory import MemoryLogStorage
from conveyor_raft.storage.sqlite import SQLiteLogStorage
from conveyor_raft.transport.base import EntryTrace, RaftTransport
from conveyor_raft.transport.grpc import GrpcTransport
from conveyor_raft.transport.memory import MemoryNetwork, MemoryTransport
from conveyor_raft.watch import Watchers

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")

_logger = logging.getLogger(__name__)


class Life(Generic[C, R, S]):
    """One run of a node. It is the transport's `Receiver`."""

    def __init__(
        self,
        config: RaftConfig,
        state_machine: StateMachine[C, R, S],
        network: RaftNetwork,
        *,
        storage: LogStorage | None,
        transport: RaftTransport | None,
    ) -> None:
        self.state_machine = state_machine
        self.own = Member(NodeId(config.node_id), "", config.client_address)
        self.driver: Driver[C, R, S] | None = None
        self.watchers = Watchers(config.watchers_max)
        self.failure: BaseException | None = None
        self.closing = False
        self._config = config
        self._network = network
        self._storage = storage or storage_of(config)
        self._transport = transport or transport_of(config, network)
        self._supervisor: asyncio.Task[None] | None = None
        self._doom: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Begin; return when disk and port are there, and a cluster of one leads."""
        if self._supervisor is not None:
            raise RuntimeError("the node was started before; make a new one")
        loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = loop.create_future()
        self._doom = loop.create_future()
        self._supervisor = loop.create_task(
            self._supervise(started), name=f"raft node {self.own.node_id}"
        )
        try:
            await started
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Stop, and wait until it has stopped. Safe to call twice."""
        if self._supervisor is not None:
            if not self.closing:
                self._supervisor.cancel()
            self.closing = True
            await asyncio.wait([self._supervisor])

    async def wait(self) -> None:
        """Return when it has ended as it was told; raise `NodeStopped` if it ended by itself."""
        if self._supervisor is None:
            raise NotReady("the node has not started")
        await asyncio.wait([self._supervisor])
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise `NodeStopped` if something has ended it."""
        if self.failure is not None:
            raise NodeStopped(_words(self.failure)) from self.failure

    # ------------------------------------------------------------------ the receiver

    def hello(self, asker: Member) -> Answer | None:
        """Say who this node is; None until it knows."""
        try:
            self._network.check_asker(asker)
        except FormationError as error:
            self.transport_failed(error)
        return self._network.answer(self.own, self.identity())

    def identity(self) -> Identity | None:
        """Return who this node is within its cluster."""
        return None if self.driver is None else self.driver.identity

    def receive(self, messages: Sequence[Message], traces: Sequence[EntryTrace] = ()) -> None:
        """Take messages of a peer."""
        if self.driver is not None:
            self.driver.receive(messages, traces)

    async def receive_snapshot(self, message: Message, data: bytes) -> None:
        """Take a snapshot of a peer."""
        if self.driver is None:
            raise NotReady("this node has no cluster yet")
        await self.driver.receive_snapshot(message, data)

    def peer_changed(self, peer: NodeId, *, up: bool) -> None:
        """Note that the connection to a peer changed."""
        if self.driver is not None:
            self.driver.peer_changed(peer, up=up)

    def transport_failed(self, error: BaseException) -> None:
        """End the node, because it cannot speak with the others any more."""
        if self._doom is not None and not self._doom.done():
            self._doom.set_exception(error)

    async def _supervise(self, started: asyncio.Future[None]) -> None:
        """Run the node from its disk to its end; whatever ends it is told to everybody."""
        assert self._doom is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_until(self._doom), name="raft doom")
                await self._live(group, started)
        except asyncio.CancelledError:
            if not started.done():
                started.set_exception(ShuttingDown("the node was shut down while it started"))
            if not self.closing:
                raise
        except BaseException as error:
            self.failure = _first(error)
            if started.done():
                _logger.error("node %s stops: %s", self.own.node_id, _words(self.failure))
            else:
                started.set_exception(self.failure)
        finally:
            self.closing = True  # From here on it ends by itself; nobody may cut it short.
            await self._release()

    async def _live(self, group: asyncio.TaskGroup, started: asyncio.Future[None]) -> None:
        """Open the disk, bind the port, find the cluster, and drive."""
        stored = await self._storage.open(self.own.node_id)
        self.own = self.own._replace(incarnation=stored.incarnation)
        address = await self._transport.start(self)
        self.own = self.own._replace(raft_address=address)
        self._network.forget_own(address)
        if stored.cluster_id is None and self._network.listed:
            started.set_result(None)
        driver = await self._join(stored)
        group.create_task(driver.run(), name="raft driver")
        if stored.cluster_id is not None and self._network.listed:
            asking = self._network.check_hints(self._transport, self.own, stored.cluster_id)
            group.create_task(asking, name="raft hints")
        if not started.done():
            await self._settled_in(driver)
            started.set_result(None)

    async def _join(self, stored: Stored) -> Driver[C, R, S]:
        """Return the driver of a member: with what is on the disk, or with a new cluster."""
        loaded = stored.loaded
        roster: tuple[Member, ...] = ()
        if stored.cluster_id is None or not (loaded.frames or loaded.snapshot):
            verdict = await self._network.form(self._transport, self.own)
            cluster_id, roster = verdict.cluster_id, verdict.roster
            if stored.cluster_id is None:
                if not verdict.formed:
                    loaded = first_state(Membership(roster))
                await self._storage.form(cluster_id, loaded)
            elif stored.cluster_id != cluster_id:
                raise WrongIdentity(
                    f"the data directory belongs to the cluster {stored.cluster_id.hex()[:12]}, the"
                    f" peers to {cluster_id.hex()[:12]}; correct the peers"
                )
            _logger.info("node %s is in the cluster %s", self.own.node_id, cluster_id.hex()[:12])
        else:
            cluster_id = stored.cluster_id
        identity = Identity(cluster_id, self.own.node_id, stored.incarnation)
        driver = Driver(
            self._config,
            identity,
            loaded,
            state_machine=self.state_machine,
            storage=self._storage,
            transport=self._transport,
            watchers=self.watchers,
            meet=self._network.meet,
        )
        if loaded.snapshot is not None:
            data = await self._storage.snapshots.get(loaded.snapshot)
            driver.applier.restore(loaded.snapshot, data)
        self._network.check_single(driver.members)
        driver.introduce(driver.members or roster)
        self._network.meet(driver.members or roster)
        for member in driver.members:
            if member.node_id == self.own.node_id and member != self.own:
                _logger.warning(
                    "the cluster knows this node at %s (clients: %s), it is now at %s (%s)",
                    *member[1:3],
                    *self.own[1:3],
                )
        self.driver = driver
        return driver

    async def _settled_in(self, driver: Driver[C, R, S]) -> None:
        """Wait until a cluster of one leads, with everything in its state that is in its log."""
        if len(driver.members) == 1:
            async for _ in self.watchers.add(driver.leadership(), Applied(LogIndex(0))):
                leads = driver.core.role is RaftRole.LEADER
                if leads and driver.applier.index >= driver.core.last_id.index:
                    return

    async def _release(self) -> None:
        reason = "the node was shut down" if self.failure is None else _words(self.failure)
        if self.driver is not None:
            self.driver.abandon(reason)
        self.watchers.notify(None)
        with suppress(OSError):
            await self._transport.close()
        await self._storage.close()


def storage_of(config: RaftConfig) -> LogStorage:
    """Return the storage that the config asks for."""
    if config.data_dir is None:
        return MemoryLogStorage()
    return SQLiteLogStorage(config.data_dir)


def transport_of(config: RaftConfig, network: RaftNetwork) -> RaftTransport:
    """Return the transport that the config asks for."""
    listen = config.listen_address or network.own_address
    if listen is not None:
        return GrpcTransport(
            listen,
            advertise=config.advertise_address,
            outbox_bytes_max=config.outbox_bytes_max,
            chunk_bytes=config.snapshot_chunk_bytes,
        )
    if network.listed:
        raise FormationError(
            "a node with peers needs RaftConfig.listen_address, or its own entry among the peers"
        )
    return MemoryTransport(MemoryNetwork(), "nowhere")


def _first(error: BaseException) -> BaseException:
    """Return the error that began it, out of the groups that carried it here."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    """Return the error as a sentence; a foreign one with its kind."""
    return str(error) if isinstance(error, RaftError) else f"{type(error).__name__}: {error}"


async def _until(doom: asyncio.Future[None]) -> None:
    await doom
