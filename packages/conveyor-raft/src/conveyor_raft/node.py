"""`RaftNode`: one member of a cluster, from its start to its end.

What for: this is what a user of conveyor-raft holds. It opens the disk, binds the port, finds its
cluster, lets the driver run, and puts the outcome of everything into words.

Rules kept:

* Whoever waits is told, whatever ends the node: shutdown, a failed disk, a broken state machine.
* A fatal error stops this node, says why, and leaves the process to its owner (`wait_stopped`).
* `start` returns when the disk is open and the port is bound; forming a cluster with others goes on
  in the background, because they may start much later. `wait_for_leader` waits for it.

Theory: Raft (Ongaro and Ousterhout, 2014); the names of the methods are those of its clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from opentelemetry.trace import Span

from conveyor_raft.client_session import ClientSession, SessionToken, client_session
from conveyor_raft.config import RaftConfig
from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.types import (
    Member,
    NodeId,
)
from conveyor_raft.driver import Driver
from conveyor_raft.errors import (
    NoQuorum,
    NotReady,
    PayloadTooLarge,
    RaftError,
    ShuttingDown,
    UnknownOutcome,
)
from conveyor_raft.life import Life
from conveyor_raft.machines.base import StateMachine
from conveyor_raft.machines.sessions import SessionLayer
from conveyor_raft.network import Peers, RaftNetwork
from conveyor_raft.node_views import NodeViews
from conveyor_raft.storage.base import LogStorage
from conveyor_raft.telemetry import propose_span, traceparent_of
from conveyor_raft.transport.base import RaftTransport
from conveyor_raft.waiters import Deadlines

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

ReadConsistency = Literal["local", "lease", "linearizable"]

_logger = logging.getLogger(__name__)


class RaftNode(NodeViews[C, R, S]):
    """One member of a cluster. Use it as `async with`, or call `start` and `shutdown`.

    `storage` and `transport` default to what the config says: SQLite in `data_dir` or memory, and
    gRPC on `listen_address`. A node without peers is a cluster of one.
    """

    def __init__(
        self,
        config: RaftConfig,
        state_machine: StateMachine[C, R, S],
        peers: Peers = (),
        *,
        storage: LogStorage | None = None,
        transport: RaftTransport | None = None,
    ) -> None:
        self.config = config
        self.network = RaftNetwork(config.node_id, peers)
        self._deadlines = Deadlines(config.propose_timeout_ms / 1000)
        self._life = Life[C, R, S](
            config, SessionLayer(state_machine), self.network, storage=storage, transport=transport
        )

    @classmethod
    async def new(
        cls,
        config: RaftConfig,
        state_machine: StateMachine[C, R, S],
        peers: Peers = (),
        *,
        storage: LogStorage | None = None,
        transport: RaftTransport | None = None,
    ) -> Self:
        """Construct and start a node."""
        node = cls(config, state_machine, peers, storage=storage, transport=transport)
        await node.start()
        return node

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Open the disk and bind the port; a cluster of one leads when this returns.

        Raises:
            StorageError: the data directory is in use, belongs to somebody else, or is damaged.
            ListenError: the port is taken.
            FormationError: the peers cannot be this node's.
        """
        await self._life.start()

    async def shutdown(self) -> None:
        """Stop: refuse what is new, tell everybody who waits, release port and disk.

        Safe to call twice. Commands under way end as `UnknownOutcome`.
        """
        await self._life.end()
        self._deadlines.cancel()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    async def wait_stopped(self) -> None:
        """Return when the node was shut down; raise `NodeStopped` when it stopped by itself."""
        await self._life.wait()

    # ------------------------------------------------------------------ commands

    async def propose(self, command: C, *, timeout: float | None = None) -> R:
        """Have the command agreed and applied; return what `apply` returned. Leader only.

        `timeout` is in seconds; without one it is `RaftConfig.propose_timeout_ms`.

        Raises:
            RejectedError: the command surely had and will have no effect.
            UnknownOutcome: it may have; a time-out is one of these.
            CommandRejected: the state machine refused it.
        """
        span = propose_span(self._life.own.node_id)
        if span is not None:
            return await self._propose_traced(command, timeout, span)
        future = self._propose(command, None)
        if timeout is None:
            self._deadlines.watch(future)
            return await future
        return await _within(timeout, future)

    def propose_nowait(self, command: C) -> asyncio.Future[R]:
        """As `propose`, with a future and without a time limit. Some refusals raise at once."""
        return self._propose(command, None)

    async def propose_many(
        self, commands: Sequence[C], *, timeout: float | None = None
    ) -> list[R | RaftError]:
        """Propose commands in order, as cheaply as possible; return one outcome for each.

        They are not atomic: another node may lead after some of them.

        Raises:
            RejectedError: none of them was accepted.
        """
        futures: list[asyncio.Future[R]] = []
        refused: RaftError | None = None
        for command in commands:
            try:
                futures.append(self._propose(command, None))
            except RaftError as error:
                if not futures:
                    raise
                refused = error
                break
        seconds = self.config.propose_timeout_ms / 1000 if timeout is None else timeout
        outcomes: list[R | RaftError] = []
        try:
            async with asyncio.timeout(seconds):
                for future in futures:
                    try:
                        outcomes.append(await future)
                    except RaftError as error:
                        outcomes.append(error)
        except TimeoutError:
            late = UnknownOutcome(f"no answer within {seconds:g} s")
            for future in futures[len(outcomes) :]:
                future.cancel()
            outcomes += [late] * (len(futures) - len(outcomes))
        if refused is not None:
            outcomes += [refused] * (len(commands) - len(futures))
        return outcomes

    def session(
        self, ttl: float = 60.0, *, resume: SessionToken | None = None
    ) -> AbstractAsyncContextManager[ClientSession[C, R]]:
        """Open a session: in it, a command that is proposed again takes effect once. Leader only.

            async with node.session() as session:
                await session.propose(command)

        It ends when nothing was proposed in it for `ttl` seconds of the log's time, or with the
        `async with`. `resume` goes on with one that was detached from another node.

        Raises:
            RejectedError: it was not opened.
            UnknownOutcome: it may have been opened; it will expire by itself.
        """
        return client_session(
            self._propose_in_session, ttl, resume, self.config.propose_timeout_ms / 1000
        )

    # ------------------------------------------------------------------ members

    async def change_membership(
        self, change: MembershipChange, *, timeout: float | None = None
    ) -> None:
        """Change who belongs to the cluster; return when that is in force for good. Leader only.

        Whoever is promoted must catch up first, so this can take as long as a snapshot does;
        `timeout` is in seconds, and without one this waits.

        Raises:
            RejectedError: the change does not take place; `InvalidChange` says that it never could,
                `ChangeRefused` why it does not now.
            UnknownOutcome: it may take place.
        """
        driver = self._life.driver
        if driver is None or self._life.closing or self._life.failure is not None:
            raise NotReady("this node has no cluster yet, or is stopping")
        future = driver.change_membership(change)
        await (future if timeout is None else _within(timeout, future))

    async def add_learner(self, node_id: int, raft_address: str, client_address: str = "") -> None:
        """Let a node belong to the cluster without a vote; start it afterwards, with an empty disk.

        Its peers are then any members of the cluster.
        """
        member = Member(NodeId(node_id), raft_address, client_address)
        await self.change_membership(MembershipChange(add=(member,)))

    async def promote(self, node_id: int) -> None:
        """Give a learner a vote, once it has caught up."""
        await self.change_membership(MembershipChange(promote=(NodeId(node_id),)))

    async def remove(self, node_id: int) -> None:
        """Let a node belong to the cluster no longer; the leader itself then hands over."""
        await self.change_membership(MembershipChange(remove=(NodeId(node_id),)))

    async def state(self) -> S:
        """Return this node's own applied state; on a follower it may be behind the leader's."""
        return self._life.state_machine.state

    async def read(
        self,
        function: Callable[[S], T],
        *,
        consistency: ReadConsistency = "linearizable",
        timeout: float | None = None,
    ) -> T:
        """Return what the function returns for this node's state; on any node of the cluster.

        `linearizable`: the state holds everything that was acknowledged, anywhere, before the call;
        it costs a round of messages that all reads of the moment share. `lease`: the same without
        messages, on a leader only and if `RaftConfig.lease_reads` allows it; as safe as the clocks.
        `local`: the state as it is here, perhaps behind. The function must neither change the state
        nor keep a reference to it. `timeout` is in seconds.

        Raises:
            NoQuorum: no majority has confirmed the leader in time.
            LeaseUnavailable: there is no lease at the moment.
            NotLeader: nobody is known to lead, or this node does not and was asked for its lease.
            Busy: too many reads wait.
        """
        if consistency != "local":
            future = self._driver().questions.read(lease=consistency == "lease")
            seconds = self.config.propose_timeout_ms / 1000 if timeout is None else timeout
            try:
                async with asyncio.timeout(seconds):
                    await future
            except TimeoutError:
                raise NoQuorum(f"the read was not confirmed within {seconds:g} s") from None
        return function(self._life.state_machine.state)

    async def transfer_leadership(self, to: int | None = None) -> NodeId:
        """Hand leadership over, to the most advanced voter unless one is named; return who has it.

        Until it has ended, two of the longest election timeouts at most, proposals and reads are
        refused with `TransferInProgress`. Naming the leader itself changes nothing.

        Raises:
            NotLeader: this node does not lead.
            TransferInProgress: another transfer is under way.
            InvalidChange: there is no such other voter.
            TransferFailed: it has not worked; this node, or another one, leads.
        """
        driver = self._driver()
        if to == self.node_id and self.is_leader:
            return self.node_id
        leader_id: NodeId = await driver.questions.transfer(None if to is None else NodeId(to))
        return leader_id

    # ------------------------------------------------------------------ inside

    def _driver(self) -> Driver[C, R, S]:
        life = self._life
        if life.closing or life.failure is not None:
            raise ShuttingDown("this node is stopping; try another one")
        if life.driver is None:
            raise NotReady("this node has no cluster yet; wait_for_leader waits for it")
        return life.driver

    def _propose(self, command: C, traceparent: str | None) -> asyncio.Future[R]:
        driver = self._driver()
        payload = self._life.state_machine.encode_command(command)
        if len(payload) > self.config.max_payload_bytes:
            raise PayloadTooLarge(len(payload), self.config.max_payload_bytes)
        return driver.propose(payload, traceparent)

    async def _propose_in_session(self, command: Any, timeout: float) -> Any:
        return await self.propose(command, timeout=timeout)

    async def _propose_traced(self, command: C, timeout: float | None, span: Span) -> R:
        try:
            future = self._propose(command, traceparent_of(span))
            seconds = self.config.propose_timeout_ms / 1000 if timeout is None else timeout
            return await _within(seconds, future)
        except RaftError as error:
            span.record_exception(error)
            raise
        finally:
            span.end()


async def _within(seconds: float, future: asyncio.Future[R]) -> R:
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        raise UnknownOutcome(f"no answer within {seconds:g} s") from None
