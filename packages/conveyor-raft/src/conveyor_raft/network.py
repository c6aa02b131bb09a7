"""`RaftNetwork`: whom this node knows, and how it finds its cluster at start.

What for: an address book that begins with what the operator wrote and ends with what the log says.

Rules kept: the stored membership wins over the listed peers, which are hints from then on; the
decision is the pure machine's (`formation`), this module only asks and waits; whoever is waited for
is named in the log, once for each change, as a warning when it takes longer than a moment.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence

from conveyor_raft.core.types import ClusterId, Identity, Member, NodeId
from conveyor_raft.errors import FormationError
from conveyor_raft.formation import Answer, Formation, Verdict, check_hints
from conveyor_raft.transport.base import RaftTransport

_logger = logging.getLogger(__name__)

_ROUND_SECONDS = 0.02
_ROUND_SECONDS_MAX = 1.0
_HINT_SECONDS_MAX = 30.0
_PATIENCE_SECONDS = 2.0

Peers = Sequence[str] | Mapping[int, str] | Sequence[tuple[int, str]]
"""Raft addresses of the other nodes: plain, or with their ids. One's own entry is ignored."""


class RaftNetwork:
    """The members as far as this node knows them."""

    def __init__(self, node_id: int, peers: Peers = ()) -> None:
        self.node_id = node_id
        self.own_address: str | None = None
        """The address that the peers give for this node itself, if they do."""
        self.waiting_for: tuple[str, ...] = ()
        self.boot = secrets.token_bytes(8)
        self._listed: dict[str, int | None] = {}
        self._members: dict[NodeId, Member] = {}
        self._formation: Formation | None = None
        pairs = peers.items() if isinstance(peers, Mapping) else [_pair(peer) for peer in peers]
        for peer_id, address in pairs:
            if peer_id == node_id:
                self.own_address = address
            elif peer_id is not None and peer_id in self._listed.values():
                raise FormationError(
                    f"the node id {peer_id} is listed twice among the peers; every node needs an"
                    " id of its own"
                )
            else:
                self._listed[address] = peer_id

    @property
    def listed(self) -> list[str]:
        """The addresses of the others, as the operator wrote them."""
        return list(self._listed)

    def forget_own(self, address: str) -> None:
        """Take this node's own address out of the list of the others."""
        self._listed.pop(address, None)

    def meet(self, members: Sequence[Member]) -> None:
        """Let the log's members replace whatever the book had."""
        self._members = {member.node_id: member for member in members}

    def add_peer(self, member: Member) -> None:
        """Put a member into the book, or replace it."""
        self._members[member.node_id] = member

    def remove_peer(self, node_id: NodeId) -> None:
        """Take a member out of the book."""
        self._members.pop(node_id, None)

    def get_peer(self, node_id: NodeId) -> Member | None:
        """Return a member."""
        return self._members.get(node_id)

    def list_peers(self) -> list[Member]:
        """Return all members, ordered by id."""
        return [self._members[node_id] for node_id in sorted(self._members)]

    def answer(self, own: Member, identity: Identity | None) -> Answer | None:
        """Say who this node is, to whoever asks; None until it knows."""
        if identity is not None:
            return Answer(own, self.boot, identity.cluster_id, tuple(self.list_peers()))
        return None if self._formation is None else self._formation.answer()

    def check_asker(self, asker: Member) -> None:
        """Refuse to form a cluster while another node with this node's id tries the same.

        Raises:
            FormationError: the asker has this node's id.
        """
        formation = self._formation
        same_id = asker.node_id == self.node_id
        if formation is not None and same_id and asker.incarnation != formation.own.incarnation:
            raise FormationError(
                f"a node at {asker.raft_address} has the node id {asker.node_id} as well;"
                " give every node an id of its own"
            )

    async def form(self, transport: RaftTransport, own: Member) -> Verdict:
        """Ask the listed peers until it is certain which cluster this node belongs to.

        Raises:
            FormationError: it can never become certain with these peers.
            WrongIdentity: the cluster knows this node with another data directory.
        """
        formation = self._formation = Formation(own, self.boot, self._listed)
        pause = _ROUND_SECONDS
        loop = asyncio.get_running_loop()
        warn_at, told = loop.time() + _PATIENCE_SECONDS, logging.NOTSET
        while (verdict := formation.verdict()) is None:
            version = formation.version
            answers = await _ask(transport, own, formation.addresses)
            for address, answer in answers.items():
                if isinstance(answer, Answer):
                    formation.on_answer(address, answer, version)
                else:
                    formation.on_silence(address, answer)
            verdict = formation.verdict()
            if verdict is not None:
                break
            waiting = tuple(formation.waiting_for())
            level = logging.INFO if loop.time() < warn_at else logging.WARNING
            if waiting != self.waiting_for:
                pause = _ROUND_SECONDS
            if waiting != self.waiting_for or level != told:
                _logger.log(level, "node %s waits for %s", own.node_id, "; ".join(waiting))
            self.waiting_for, told = waiting, level
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _ROUND_SECONDS_MAX)
        self.waiting_for = ()
        self._formation = None
        return verdict

    async def check_hints(
        self, transport: RaftTransport, own: Member, cluster_id: ClusterId
    ) -> None:
        """Ask the listed peers, each until it answers, whether they share this node's cluster.

        Raises:
            WrongIdentity: most of them are in another cluster.
        """
        known: dict[str, Answer] = {}
        pause = _ROUND_SECONDS
        while len(known) < len(self._listed):
            unknown = [address for address in self._listed if address not in known]
            answers = await _ask(transport, own, unknown)
            known |= {a: answer for a, answer in answers.items() if isinstance(answer, Answer)}
            check_hints(cluster_id, self.listed, known)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _HINT_SECONDS_MAX)

    def check_single(self, members: Sequence[Member]) -> None:
        """Refuse to turn a cluster of one into a member of something else by its peers alone."""
        if len(members) == 1 and self._listed:
            raise FormationError(
                "the data directory belongs to a cluster of one node, and peers are listed"
                f" ({', '.join(self._listed)}); start it without peers, or with an empty data"
                " directory to form a new cluster with them"
            )


def _pair(peer: str | tuple[int, str]) -> tuple[int | None, str]:
    return (None, peer) if isinstance(peer, str) else peer


async def _ask(
    transport: RaftTransport, own: Member, addresses: Sequence[str]
) -> dict[str, Answer | str]:
    """Say hello to all addresses at once; a string says why one did not answer."""

    async def ask(address: str) -> Answer | str:
        try:
            return await transport.hello(address, own)
        except OSError as error:
            return str(error)

    async with asyncio.TaskGroup() as group:
        tasks = {address: group.create_task(ask(address)) for address in addresses}
    return {address: task.result() for address, task in tasks.items()}
