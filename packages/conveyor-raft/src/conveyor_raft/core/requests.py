"""What callers have asked of a node and what has not ended yet, whatever its role is by then.

What for: a command, a change of the membership, a read and a transfer of leadership are asked for
with a token, and may outlive the office in which they were accepted. Each kind has its own module
(`proposals`, `reconfiguration`, `reads`, `transfer`); here is when a node accepts one, and what
becomes of the open ones when the role changes or the disk fails.

Rules kept:

* A refusal changes nothing. Whatever was accepted ends exactly once, in the `Output`.
* While the office is being handed over nothing new is accepted, and the refusal names the target.
* The role is an argument, and nothing here changes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.follower import Follower
from conveyor_raft.core.leader import Leader
from conveyor_raft.core.messages import Message, ReadReply, ReadRequest
from conveyor_raft.core.output import Output
from conveyor_raft.core.proposals import Proposals
from conveyor_raft.core.reads import Reads
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.role import Role
from conveyor_raft.core.transfer import Transfer, choose_target
from conveyor_raft.core.types import (
    LogIndex,
    NodeId,
    NotTransferred,
    Proposed,
    ProposeResult,
    Refused,
    RefusedReason,
    TransferOutcome,
)
from conveyor_raft.errors import PayloadTooLarge


class Requests:
    """The open requests of one node."""

    __slots__ = ("_replica", "_transferred", "proposals", "reads", "transfer")

    def __init__(self, replica: Replica) -> None:
        """Begin with nobody waiting."""
        self._replica = replica
        self.proposals = Proposals()
        self.reads = Reads()
        self.transfer: Transfer | None = None
        self._transferred: list[tuple[int, TransferOutcome]] = []

    # ------------------------------------------------------------------ asked by callers

    def propose(
        self, role: Role, payloads: Sequence[bytes], *, wall_ms: int, token: int
    ) -> ProposeResult:
        """Append commands; see `RaftCore.propose`."""
        replica = self._replica
        if not payloads:
            raise ValueError("a proposal needs at least one payload")
        sizes = list(map(len, payloads))
        largest = max(sizes)
        if largest > replica.options.max_payload_bytes:
            raise PayloadTooLarge(largest, replica.options.max_payload_bytes)
        leader = self._in_office(role)
        if isinstance(leader, Refused):
            return leader
        if not leader.has_room(replica, len(sizes), sum(sizes)):
            return Refused(RefusedReason.BUSY, leader.leader_id, replica.term)
        first = LogIndex(replica.log.last_index + 1)
        leader.propose(replica, payloads, wall_ms)
        proposed = Proposed(first, replica.log.last_index, replica.term)
        self.proposals.add(token, proposed)
        return proposed

    def change_membership(
        self, role: Role, change: MembershipChange, *, token: int
    ) -> ProposeResult:
        """Begin to change who belongs to the cluster; see `RaftCore.change_membership`."""
        replica = self._replica
        leader = self._in_office(role)
        if isinstance(leader, Refused):
            return leader
        first = LogIndex(replica.log.last_index + 1)
        refusal = leader.change_membership(replica, change, token)
        if refusal is not None:
            return Refused(refusal, leader.leader_id, replica.term)
        self._note_changes(leader)
        return Proposed(first, replica.log.last_index, replica.term)

    def read(self, role: Role, *, token: int, lease: bool) -> Refused | None:
        """Ask when a read may run here; see `RaftCore.read`."""
        replica = self._replica
        if replica.failed:
            return Refused(RefusedReason.FAILED, None, replica.term)
        if role.leader_id is None or (lease and not isinstance(role, Leader)):
            return Refused(RefusedReason.NOT_LEADER, role.leader_id, replica.term)
        if isinstance(role, Leader) and self.transfer is not None:
            return Refused(RefusedReason.TRANSFERRING, self.transfer.target, replica.term)
        if self.open_reads(role) >= replica.options.max_pending_reads:
            return Refused(RefusedReason.BUSY, role.leader_id, replica.term)
        if lease and not self.has_lease(role, replica.now_ms):
            return Refused(RefusedReason.NO_LEASE, role.leader_id, replica.term)
        if lease:
            self.reads.let_pass(replica.commit_index, [token])
        elif isinstance(role, Leader):
            role.reads.add(token)
        else:
            self.reads.forwarded.add(token)
        return None

    def hand_over(self, role: Role, to: NodeId | None, *, token: int) -> NodeId | Refused:
        """Begin to hand the office over; see `RaftCore.transfer`."""
        replica = self._replica
        leader = self._in_office(role)
        if isinstance(leader, Refused):
            return leader
        target = choose_target(replica, leader.progress, to)
        if target is None:
            return Refused(RefusedReason.NO_TARGET, leader.leader_id, replica.term)
        leader.contact.void_lease()
        self.reads.fail(leader.reads.give_up(), "the leader hands its office over")
        self.transfer = Transfer(replica, target, token)
        return target

    def _in_office(self, role: Role) -> Leader | Refused:
        """Return the leader that takes the request, or why this node takes none."""
        replica = self._replica
        if replica.failed:
            return Refused(RefusedReason.FAILED, None, replica.term)
        if not isinstance(role, Leader):
            return Refused(RefusedReason.NOT_LEADER, role.leader_id, replica.term)
        if self.transfer is not None:
            return Refused(RefusedReason.TRANSFERRING, self.transfer.target, replica.term)
        return role

    def has_lease(self, role: Role, now_ms: int) -> bool:
        """Whether this node may answer reads by itself at this time."""
        return (
            isinstance(role, Leader)
            and self.transfer is None
            and role.is_settled(self._replica)
            and role.contact.has_lease(self._replica, now_ms)
        )

    def open_reads(self, role: Role) -> int:
        """Return how many reads wait."""
        return len(self.reads) + (len(role.reads) if isinstance(role, Leader) else 0)

    # ------------------------------------------------------------------ asked by other nodes

    def on_read_request(self, role: Role, message: Message, request: ReadRequest) -> None:
        """A follower's batch takes part in the next round, if this node leads."""
        if not isinstance(role, Leader) or message.sender not in role.progress or self.transfer:
            self._replica.counters["stale"] += 1
            return
        if request.suspect:
            role.restart_stream(self._replica, message.sender, request.batch)
        role.reads.add_batch(message.sender, request.batch)

    def on_read_reply(self, reply: ReadReply) -> None:
        """The leader has confirmed a batch."""
        self.reads.let_pass(reply.index, self.reads.forwarded.on_reply(reply))

    # ------------------------------------------------------------------ going on

    def reconfigure(self, leader: Leader) -> None:
        """Go on with a change of the membership, but not while the office is handed over."""
        if self.transfer is None:
            leader.reconfigure(self._replica)
            self._note_changes(leader)

    def advance_transfer(self, leader: Leader) -> None:
        """Go on with handing the office over."""
        if self.transfer is not None:
            self.transfer.advance(self._replica, leader.progress)
            if self.transfer.asked:
                leader.contact.void_lease(for_good=True)

    def end_transfer(self, role: Role) -> None:
        """Tell who waits for a transfer how it has ended, once it has."""
        transfer = self.transfer
        if transfer is None:
            return
        leads = isinstance(role, Leader)
        outcome = transfer.outcome(self._replica, role.leader_id, leads=leads)
        if outcome is not None:
            self._transferred.append((transfer.token, outcome))
            self.transfer = None

    def serve_reads(self, role: Role) -> None:
        """Have reads confirmed, and let those pass that are."""
        replica, reads = self._replica, self.reads
        if isinstance(role, Leader):
            role.confirm_reads(replica, reads)
        if reads.forwarded:
            if not isinstance(role, Follower):
                reads.fail(reads.forwarded.give_up(), "the leader is not heard any more")
            elif role.leader_id is not None:
                reads.forwarded.ask(replica, role.leader_id)
        reads.applied(replica.applied_index)

    # ------------------------------------------------------------------ ending

    def lose_office(self, role: Role, reason: str, committed: LogIndex) -> None:
        """End what only a leader can bring to its end."""
        if isinstance(role, Leader):
            self.reads.fail(role.reads.give_up(), reason)
            role.reconfiguration.give_up(self._replica, reason)
            self._note_changes(role)
        self.proposals.abandon(committed, reason)

    def end_all(self, role: Role, write_id: int) -> None:
        """The write has failed, and nothing can be brought to its end here."""
        self.lose_office(role, f"write {write_id} failed on the leader's disk", LogIndex(0))
        self.reads.fail_all("this node's disk has failed")
        if self.transfer is not None:
            outcome = NotTransferred("this node's disk has failed")
            self._transferred.append((self.transfer.token, outcome))
            self.transfer = None

    def report(self, out: Output) -> None:
        """Say how requests have ended since the last time."""
        out.finished, self.proposals.finished = self.proposals.finished, []
        out.reads, self.reads.finished = self.reads.finished, []
        out.transfers, self._transferred = self._transferred, []

    def _note_changes(self, leader: Leader) -> None:
        """Follow the entries that end a change of the membership, and end what was given up."""
        changes = leader.reconfiguration
        for token, proposed in changes.proposed:
            self.proposals.add(token, proposed)
        self.proposals.finished += changes.withdrawn
        changes.proposed, changes.withdrawn = [], []
