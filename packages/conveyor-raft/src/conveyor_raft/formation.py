"""How empty nodes become one cluster, and how a node finds the one it belongs to. Pure.

What for: every node of a new cluster is started with the addresses of the others, in any order and
at any time, perhaps with mistakes. Two rules must hold whatever happens: a part of the listed nodes
never forms a cluster by itself, and all nodes write the identical first entry.

Rules kept:

* A node says who it is (`Member`: id, incarnation, addresses). The incarnation is drawn once for
  each data directory, so a node that lost its disk is not taken for the one that it was.
* An empty node asks every listed address until all have answered "empty", and then *proposes* the
  roster of all of them. It forms the cluster only when every other node proposes the same roster,
  in an answer given after this node proposed it; a stale answer never counts. Nodes that list
  different peers therefore wait, and say so.
* A peer that answers with a formed cluster settles it: who stands in its roster, with this
  incarnation, joins by writing the same first entry; the same id with another incarnation is a
  wiped disk and is refused; a stranger is refused.
* The cluster id is the SHA-256 of the sorted (id, incarnation) pairs.
* An address that leads back to this very process (same boot number) is ignored.

The machine holds no connection and no clock: feed `on_answer` and `on_silence`, read `verdict`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from conveyor_raft.core.types import ClusterId, Member
from conveyor_raft.errors import FormationError, WrongIdentity


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node says when it is asked who it is.

    `roster` is the membership of its cluster if it has one (`cluster_id`), else what it proposes,
    else empty. `boot` is drawn each time the process starts.
    """

    member: Member
    boot: bytes
    cluster_id: ClusterId | None = None
    roster: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cluster this node is part of.

    If it was not `formed` before, write its first entry; else begin empty: its log has that entry,
    and the leader will send it. Today's roster need not be the first.
    """

    cluster_id: ClusterId
    roster: tuple[Member, ...]
    formed: bool = field(default=False, compare=False)


def cluster_id_of(roster: Iterable[Member]) -> ClusterId:
    """Return the SHA-256 of the sorted (id, incarnation) pairs."""
    pairs = sorted((member.node_id, member.incarnation) for member in roster)
    digest = hashlib.sha256()
    for node_id, incarnation in pairs:
        digest.update(struct.pack("<QH", node_id, len(incarnation)) + incarnation)
    return ClusterId(digest.digest())


class Formation:
    """One empty node looking for its cluster.

    `peers` maps each listed address to the id that is expected there, or None.
    """

    def __init__(self, own: Member, boot: bytes, peers: Mapping[str, int | None]) -> None:
        self.own = own
        self._boot = boot
        self._expected = {
            address: node_id for address, node_id in peers.items() if address != own.raft_address
        }
        self._answers: dict[str, Answer] = {}
        self._silent: dict[str, str] = {}
        self._agreed: set[str] = set()
        self._proposal: tuple[Member, ...] = ()
        self.version = 0
        """Counts the proposals; say with each answer under which one the question was asked."""
        self._propose()

    @property
    def addresses(self) -> list[str]:
        """Whom to ask, in the order in which they were listed."""
        return list(self._expected)

    def answer(self) -> Answer:
        """What this node says to others while it waits."""
        return Answer(self.own, self._boot, None, self._proposal)

    def on_silence(self, address: str, reason: str) -> None:
        """The address did not answer; what it said before no longer counts."""
        if address in self._expected:
            self._forget(address)
            self._silent[address] = reason
            self._propose()

    def on_answer(self, address: str, answer: Answer, version: int) -> None:
        """The address answered a question asked when `self.version` was `version`.

        Raises:
            FormationError: what the nodes were told cannot become a cluster.
            WrongIdentity: the cluster knows this node's id with another data directory.
        """
        if address not in self._expected:
            return
        self._silent.pop(address, None)
        if answer.boot == self._boot:
            self._forget(address)
            del self._expected[address]
            self._propose()
            return
        self._check_identity(address, answer)
        self._answers[address] = answer
        self._agreed.discard(address)
        self._propose()
        if version == self.version and self._proposal and answer.roster == self._proposal:
            self._agreed.add(address)

    def verdict(self) -> Verdict | None:
        """Return the cluster once it is certain, else None."""
        formed = {
            answer.cluster_id: answer for answer in self._answers.values() if answer.cluster_id
        }
        if len(formed) > 1:
            names = ", ".join(
                f"{address} is in {answer.cluster_id.hex()[:12]}"
                for address, answer in self._answers.items()
                if answer.cluster_id
            )
            raise FormationError(
                f"the listed peers belong to different clusters ({names}); correct the peers"
            )
        for cluster_id, answer in formed.items():
            assert cluster_id is not None
            return Verdict(cluster_id, answer.roster, formed=True)
        if self._proposal and self._agreed == set(self._answers):
            return Verdict(cluster_id_of(self._proposal), self._proposal)
        return None

    def waiting_for(self) -> list[str]:
        """Say, one line for each, whom this node waits for and why."""
        lines = [f"{address} ({reason})" for address, reason in self._silent.items()]
        for address in self._expected:
            if address not in self._answers and address not in self._silent:
                lines.append(f"{address} (not asked yet)")
        if lines:
            return lines
        own_ids = [member.node_id for member in self._proposal]
        for address, answer in self._answers.items():
            if address in self._agreed:
                continue
            ids = [member.node_id for member in answer.roster]
            if ids and ids != own_ids:
                said = f"lists the nodes {ids}, this node lists {own_ids}: make the peers equal"
            else:
                said = "still waits for others"
            lines.append(f"{address} (node {answer.member.node_id} {said})")
        return lines

    def _forget(self, address: str) -> None:
        self._answers.pop(address, None)
        self._agreed.discard(address)

    def _propose(self) -> None:
        """Propose the roster when all have answered; a new proposal voids every agreement."""
        roster: tuple[Member, ...] = ()
        if set(self._answers) == set(self._expected):
            members = {
                member.node_id: member
                for member in (answer.member for answer in self._answers.values())
            }
            members[self.own.node_id] = self.own
            roster = tuple(sorted(members.values(), key=lambda member: member.node_id))
        if roster != self._proposal:
            self._proposal = roster
            self.version += 1
            self._agreed.clear()

    def _check_identity(self, address: str, answer: Answer) -> None:
        member = answer.member
        expected = self._expected[address]
        if expected is not None and expected != member.node_id:
            raise FormationError(
                f"node {expected} is expected at {address}, but node {member.node_id} answers"
                " there; correct the peers"
            )
        if member.node_id == self.own.node_id:
            raise FormationError(
                f"the peer at {address} has the node id {member.node_id} as well;"
                " give every node an id of its own"
            )
        for other, known in self._answers.items():
            same_id = known.member.node_id == member.node_id
            if other != address and same_id and known.boot != answer.boot:
                raise FormationError(
                    f"the peers at {other} and {address} both have the node id {member.node_id};"
                    " give every node an id of its own"
                )
        if answer.cluster_id is not None:
            _check_member(self.own, address, answer)


def check_hints(cluster_id: ClusterId, asked: Sequence[str], answers: Mapping[str, Answer]) -> None:
    """Refuse a data directory that most of the listed peers do not share.

    A node with data trusts its stored membership; the listed peers are hints. If more than half of
    them are in another cluster, this node was given the wrong directory.

    Raises:
        WrongIdentity: the data directory belongs to another cluster than the peers.
    """
    foreign = {
        address: answer.cluster_id
        for address, answer in answers.items()
        if answer.cluster_id is not None and answer.cluster_id != cluster_id
    }
    if asked and 2 * len(foreign) > len(asked):
        address, other = next(iter(foreign.items()))
        raise WrongIdentity(
            f"the data directory belongs to the cluster {cluster_id.hex()[:12]}, but {address}"
            f" belongs to {other.hex()[:12]}; give this node its own data directory, or an empty"
            " one if it is new"
        )


def _check_member(own: Member, address: str, answer: Answer) -> None:
    """Refuse to join a cluster that does not know this node, or knows it with another disk."""
    assert answer.cluster_id is not None
    name = answer.cluster_id.hex()[:12]
    for member in answer.roster:
        if member.node_id != own.node_id:
            continue
        if member.incarnation in {b"", own.incarnation}:
            return
        raise WrongIdentity(
            f"the cluster {name} knows node {own.node_id} with another data directory: this one is"
            " new, the old one and the votes in it are lost to this node. Start it with its old"
            " data directory; if that is gone, remove the node from the cluster and add it under"
            " a new id"
        )
    ids = [member.node_id for member in answer.roster]
    raise FormationError(
        f"the peer at {address} belongs to the cluster {name} of the nodes {ids}, and node"
        f" {own.node_id} is not one of them; correct the peers, or add the node to that cluster"
    )
