"""`RaftCore`: the consensus algorithm as one object without I/O.

What for: Raft (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014),
in a form that can be tested completely and driven by anything. The core has no clock, no chance, no
disk, no network and no tasks; all of these are arguments or outputs. One seed therefore replays a
whole cluster, and the same code runs in the simulator and in production.

How to drive it: call `tick` with the time, feed inputs, call `take`, do what the `Output` says
(`output` describes the order), and come back at `next_deadline` at the latest. What was fed between
two `take` calls shares one write and, for each follower, one message: batching needs no timer.

Rules kept here, beyond those of the roles:

* Only this module changes the role. A newer term always makes a follower.
* A timer fires in `take`, after all inputs of the batch, so a heartbeat that lies in the inbox is
  heard before its absence is acted upon.
* Nothing is applied before it is durable on this node, so a restart never has applied more than it
  has stored; the next range is handed out when the one before was applied.
* A node that has just heard its leader does not even enter the term of a candidate that the leader
  did not ask for; so nobody is deposed who is in reach of a majority.
* A write that failed ends the node's part in the cluster: it cannot know any more what is on disk.
* A message of another cluster, for another node, or from another incarnation of a member (one that
  lost its disk and with it its votes) is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from conveyor_raft.core import ballot
from conveyor_raft.core.candidate import Candidate
from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.follower import Follower
from conveyor_raft.core.leader import Leader
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import (
    AppendAck,
    AppendConflict,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    ReadReply,
    ReadRequest,
    RequestVote,
    SnapshotMeta,
    TermNotice,
    TimeoutNow,
    VoteReply,
)
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.output import Output, SoftState
from conveyor_raft.core.pre_candidate import PreCandidate
from conveyor_raft.core.proposals import Proposals
from conveyor_raft.core.quorum import VoteResult
from conveyor_raft.core.reads import Reads
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.suspicion import Suspicion
from conveyor_raft.core.transfer import Transfer, choose_target
from conveyor_raft.core.types import (
    Identity,
    LogIndex,
    NodeId,
    NotTransferred,
    Proposed,
    ProposeResult,
    RaftRole,
    RandomSource,
    Refused,
    RefusedReason,
    Term,
    TransferOutcome,
)
from conveyor_raft.core.views import CoreViews
from conveyor_raft.errors import InvariantViolation, PayloadTooLarge


class RaftCore(CoreViews):
    """One node. Not thread-safe; all inputs return at once and do no I/O."""

    def __init__(
        self,
        identity: Identity,
        options: CoreOptions,
        random: RandomSource,
        loaded: LoadedState,
        now_ms: int,
    ) -> None:
        """Start as a follower with what the disk remembers.

        Raises:
            Corrupt: the loaded state contradicts itself.
        """
        replica = Replica(identity, options, random, loaded, now_ms)
        self._replica = replica
        # A sole voter has nobody to wait for.
        alone = replica.voters == (identity.node_id,)
        deadline_ms = now_ms if alone else replica.patience()
        self._role: Follower | PreCandidate | Candidate | Leader = Follower(None, deadline_ms)
        self._proposals = Proposals()
        self._reads = Reads()
        self._suspicion = Suspicion()
        self._recovery_write: int | None = None
        self._transfer: Transfer | None = None
        self._transferred: list[tuple[int, TransferOutcome]] = []
        self._apply_handed = replica.applied_index
        self._compact: LogIndex | None = None
        self._soft = SoftState(RaftRole.FOLLOWER, None, replica.term)
        self._failed = False
        # One handler for each body; but for pre-votes it sees messages of the current term only.
        self._handlers: dict[type, Callable[[Message, Any], None]] = {
            RequestVote: self._on_request_vote,
            PreVote: self._on_pre_vote,
            PreVoteReply: self._on_pre_vote_reply,
            VoteReply: self._on_vote_reply,
            AppendEntries: self._on_leader_message,
            AppendAck: self._on_follower_message,
            AppendConflict: self._on_follower_message,
            Heartbeat: self._on_leader_message,
            HeartbeatReply: self._on_follower_message,
            InstallSnapshot: self._on_leader_message,
            TermNotice: self._on_term_notice,
            TimeoutNow: self._on_timeout_now,
            ReadRequest: self._on_read_request,
            ReadReply: self._on_read_reply,
        }

    # ------------------------------------------------------------------ inputs

    def tick(self, now_ms: int) -> None:
        """Set the clock. Timers that are due fire in the next `take`, after all other inputs."""
        self._replica.now_ms = max(self._replica.now_ms, now_ms)

    def step(self, message: Message) -> None:
        """Take a message of another node; one that is not meant for this node is dropped."""
        replica = self._replica
        if self._failed or not self._is_for_us(message):
            return
        body = message.body
        if message.term > replica.term:
            if isinstance(body, RequestVote) and self._is_unwelcome(message, body):
                replica.counters["votes_withheld"] += 1
                return
            if not isinstance(body, PreVote):  # asking changes nothing
                self._follow(message.term, None)
        elif message.term < replica.term and not isinstance(body, PreVote | PreVoteReply):
            if isinstance(body, RequestVote | AppendEntries | Heartbeat | InstallSnapshot):
                replica.reveal_term(message.sender, TermNotice())
            replica.counters["stale"] += 1
            return
        self._handlers[type(body)](message, body)

    def propose(self, payloads: Sequence[bytes], *, wall_ms: int, token: int) -> ProposeResult:
        """Append commands if this node leads, all of them in one frame where they fit.

        `Proposed`: the entries have consecutive indexes, and `Output.finished` will name the token
        exactly once. `Refused`: nothing happened, and the token will not be named.

        Raises:
            PayloadTooLarge: a payload exceeds `max_payload_bytes`; nothing was appended.
        """
        replica, role = self._replica, self._role
        if not payloads:
            raise ValueError("a proposal needs at least one payload")
        sizes = list(map(len, payloads))
        largest = max(sizes)
        if largest > replica.options.max_payload_bytes:
            raise PayloadTooLarge(largest, replica.options.max_payload_bytes)
        if self._failed:
            return Refused(RefusedReason.FAILED, None, replica.term)
        if not isinstance(role, Leader):
            return Refused(RefusedReason.NOT_LEADER, role.leader_id, replica.term)
        if self._transfer is not None:
            return Refused(RefusedReason.TRANSFERRING, self._transfer.target, replica.term)
        if not role.has_room(replica, len(sizes), sum(sizes)):
            return Refused(RefusedReason.BUSY, role.leader_id, replica.term)
        first = LogIndex(replica.log.last_index + 1)
        role.propose(replica, payloads, wall_ms)
        proposed = Proposed(first, replica.log.last_index, replica.term)
        self._proposals.add(token, proposed)
        return proposed

    def change_membership(self, change: MembershipChange, *, token: int) -> ProposeResult:
        """Begin to change who belongs to the cluster, if this node leads and nothing else changes.

        The token ends as `Applied` when the last configuration of the change is in force for good.

        Raises:
            InvalidChange: the change makes no sense for the membership as it is.
        """
        replica, role = self._replica, self._role
        if self._failed:
            return Refused(RefusedReason.FAILED, None, replica.term)
        if not isinstance(role, Leader):
            return Refused(RefusedReason.NOT_LEADER, role.leader_id, replica.term)
        if self._transfer is not None:
            return Refused(RefusedReason.TRANSFERRING, self._transfer.target, replica.term)
        first = LogIndex(replica.log.last_index + 1)
        refusal = role.change_membership(replica, change, token)
        if refusal is not None:
            return Refused(refusal, role.leader_id, replica.term)
        self._note_changes(role)
        return Proposed(first, replica.log.last_index, replica.term)

    def read(self, *, token: int, lease: bool = False) -> Refused | None:
        """Ask when a read may run here; None: `Output.reads` will name the token exactly once.

        It then sees everything that was acknowledged before this call. With `lease` only a leader
        can say so, and says it at once or not at all; call `tick` with the present time before.
        """
        replica, role = self._replica, self._role
        if self._failed:
            return Refused(RefusedReason.FAILED, None, replica.term)
        if role.leader_id is None or (lease and not isinstance(role, Leader)):
            return Refused(RefusedReason.NOT_LEADER, role.leader_id, replica.term)
        if isinstance(role, Leader) and self._transfer is not None:
            return Refused(RefusedReason.TRANSFERRING, self._transfer.target, replica.term)
        if self._open_reads >= replica.options.max_pending_reads:
            return Refused(RefusedReason.BUSY, role.leader_id, replica.term)
        if lease and not self.has_lease(replica.now_ms):
            return Refused(RefusedReason.NO_LEASE, role.leader_id, replica.term)
        if lease:
            self._reads.let_pass(replica.commit_index, [token])
        elif isinstance(role, Leader):
            role.reads.add(token)
        else:
            self._reads.forwarded.add(token)
        return None

    def transfer(self, to: NodeId | None = None, *, token: int) -> NodeId | Refused:
        """Begin to hand the office over, to the best follower if none is named; return to whom.

        Then `Output.transfers` will name the token exactly once. Until it does, proposals and reads
        are refused with the target as hint.
        """
        replica, role = self._replica, self._role
        if self._failed:
            return Refused(RefusedReason.FAILED, None, replica.term)
        if not isinstance(role, Leader):
            return Refused(RefusedReason.NOT_LEADER, role.leader_id, replica.term)
        if self._transfer is not None:
            return Refused(RefusedReason.TRANSFERRING, self._transfer.target, replica.term)
        target = choose_target(replica, role.progress, to)
        if target is None:
            return Refused(RefusedReason.NO_TARGET, role.leader_id, replica.term)
        role.contact.void_lease()
        self._reads.fail(role.reads.give_up(), "the leader hands its office over")
        self._transfer = Transfer(replica, target, token)
        return target

    def on_written(self, write_id: int) -> None:
        """Everything up to and including this write is durable."""
        replica, role = self._replica, self._role
        if self._failed:
            return
        replica.ledger.written(write_id)
        if isinstance(role, Leader):
            role.count_copies(replica)
        elif isinstance(role, Candidate):
            self._decide(role.on_written(replica, write_id))

    def on_write_failed(self, write_id: int) -> None:
        """The write is not durable, and what is on disk is not known any more: stop for good.

        Open tokens end as `Unknown`, proposals are refused, and no message leaves any more.
        """
        self._failed = True
        self._lose_office(f"write {write_id} failed on the leader's disk", LogIndex(0))
        self._reads.fail_all("this node's disk has failed")
        self._role = Follower(None, None)
        if self._transfer is not None:
            outcome = NotTransferred("this node's disk has failed")
            self._transferred.append((self._transfer.token, outcome))
            self._transfer = None

    def on_applied(self, index: LogIndex) -> None:
        """The state machine has applied everything up to the index."""
        replica = self._replica
        if index > self._apply_handed:
            raise InvariantViolation(f"entry {index} was applied, but not handed out for it")
        if index > replica.applied_index:
            replica.applied_index = index
            self._proposals.applied(index)

    def describe_snapshot(self, index: LogIndex) -> SnapshotMeta:
        """Return the meta of a snapshot of the state machine as it is after the applied index."""
        replica = self._replica
        snapshot = replica.snapshot
        if snapshot is not None and index == snapshot.index:
            return snapshot
        if not replica.log.base.index < index <= replica.applied_index:
            raise ValueError(
                f"no snapshot at index {index}: applied up to {replica.applied_index}, log"
                f" {replica.log}"
            )
        (frame,) = replica.log.frames(index, index)
        membership = replica.configurations.at(index)
        return SnapshotMeta(index, frame.term, frame.timestamp_ms, membership)

    def on_snapshot_created(self, meta: SnapshotMeta) -> None:
        """A snapshot of this node's own state is durable; all but a trail of the log may go."""
        replica = self._replica
        if replica.snapshot is not None and meta.index <= replica.snapshot.index:
            return
        if meta.index > replica.applied_index or not replica.log.contains(meta.last_id):
            raise InvariantViolation(f"the snapshot at {meta.last_id} is not of this node's state")
        role = self._role
        needed_after = role.needed_after(replica) if isinstance(role, Leader) else None
        self._compact = replica.adopt_snapshot(meta, needed_after)

    def on_snapshot_installed(self, meta: SnapshotMeta) -> None:
        """The state machine has been restored from the snapshot named by `Output.install`."""
        replica = self._replica
        if meta.index <= replica.applied_index:
            return
        self._apply_handed = meta.index
        self._proposals.skipped(meta.index)
        replica.installed(meta)

    def on_snapshot_sent(self, peer: NodeId, session: int, *, delivered: bool) -> None:
        """A stream of `Output.send_snapshot` has ended; `delivered`: the peer's core has it."""
        if isinstance(self._role, Leader):
            self._role.on_snapshot_sent(self._replica, peer, session, delivered=delivered)

    def on_peer(self, peer: NodeId, *, up: bool) -> None:
        """The connection to a peer came up or went down; a hint, never a fact."""
        if isinstance(self._role, Leader):
            self._role.on_peer(peer, up=up)

    # ------------------------------------------------------------------ output

    def take(self, *, write: bool = True) -> Output:
        """Fire due timers and return everything that is to be done.

        With `write=False` a pending write stays here and grows: call it so while a flush is in
        flight, and everything that arrives meanwhile becomes one group commit. `messages_after`
        may then name a write that has not been handed out yet.
        """
        replica = self._replica
        out = Output()
        if not self._failed:
            self._fire_timer()
            self._end_transfer()
            if isinstance(self._role, Leader):
                self._lead(self._role, out)
            if replica.is_suspect and isinstance(self._role, Follower):
                self._rehabilitate(self._role, out)
            self._serve_reads()
            if write:
                out.write = replica.ledger.take_write(replica.log.last_index)
            out.messages, replica.messages = replica.messages, []
            out.messages_after, replica.messages_after = replica.messages_after, []
            out.install = replica.next_install()
            out.apply = self._next_apply()
            out.compact_through, self._compact = self._compact, None
        out.finished, self._proposals.finished = self._proposals.finished, []
        out.reads, self._reads.finished = self._reads.finished, []
        out.transfers, self._transferred = self._transferred, []
        soft = SoftState(self._role.role, self._role.leader_id, replica.term)
        if soft != self._soft:
            out.soft = self._soft = soft
        return out

    # ------------------------------------------------------------------ messages

    def _is_for_us(self, message: Message) -> bool:
        replica = self._replica
        own = replica.identity
        membership = replica.membership
        known = None if membership is None else membership.get(message.sender)
        if (
            message.cluster_id == own.cluster_id
            and message.to == own.node_id
            and message.sender != own.node_id
            and message.to_incarnation in {b"", own.incarnation}
            and (known is None or known.incarnation in {b"", message.incarnation})
        ):
            return True
        replica.counters["foreign"] += 1
        return False

    def _on_request_vote(self, message: Message, request: RequestVote) -> None:
        granted = ballot.answer(self._replica, message, request)
        if granted and isinstance(self._role, Follower):
            self._role.heard(self._replica)

    def _is_unwelcome(self, message: Message, request: RequestVote) -> bool:
        """Whether the candidate would depose a leader that this node has just heard, or is."""
        replica = self._replica
        return (
            replica.options.check_quorum
            and not request.forced
            and (isinstance(self._role, Leader) or replica.is_loyal_against(message.sender))
        )

    def _on_pre_vote(self, message: Message, request: PreVote) -> None:
        leads = isinstance(self._role, Leader)
        ballot.answer_pre_vote(self._replica, message, request, leads=leads)

    def _on_pre_vote_reply(self, message: Message, reply: PreVoteReply) -> None:
        replica, role = self._replica, self._role
        if not isinstance(role, PreCandidate):
            return
        result = role.on_reply(replica, message, reply)
        if result is VoteResult.WON:
            self._role = Candidate(replica)
        elif result is VoteResult.LOST:
            self._follow(replica.term, None)

    def _on_vote_reply(self, message: Message, reply: VoteReply) -> None:
        if isinstance(self._role, Candidate):
            self._decide(self._role.on_vote_reply(self._replica, message, reply))

    def _on_leader_message(
        self, message: Message, body: AppendEntries | Heartbeat | InstallSnapshot
    ) -> None:
        replica = self._replica
        if isinstance(self._role, Leader) or self._role.leader_id not in {None, message.sender}:
            raise InvariantViolation(
                f"node {message.sender} leads term {message.term}, which has the leader"
                f" {self._role.leader_id}"
            )
        role = self._role
        if not isinstance(role, Follower) or role.leader_id is None:
            role = self._follow(replica.term, message.sender)
        replica.heard_leader(message.sender)
        if isinstance(body, AppendEntries):
            role.on_append(replica, message, body)
        elif isinstance(body, Heartbeat):
            role.on_heartbeat(replica, message, body)
        else:
            role.on_install(replica, message, body)
        role.heard(replica)

    def _on_follower_message(
        self, message: Message, body: AppendAck | AppendConflict | HeartbeatReply
    ) -> None:
        replica, role = self._replica, self._role
        if not isinstance(role, Leader):  # it led this term before it was restarted
            replica.counters["stale"] += 1
        elif isinstance(body, AppendAck):
            role.on_ack(replica, message, body)
        elif isinstance(body, AppendConflict):
            role.on_conflict(replica, message, body)
        else:
            role.on_heartbeat_reply(replica, message, body)

    def _on_term_notice(self, message: Message, notice: TermNotice) -> None:
        """The envelope's term has said everything already."""

    def _on_timeout_now(self, message: Message, request: TimeoutNow) -> None:
        """Campaign at once, if this node can lead; if not yet, the leader will ask again."""
        replica, role = self._replica, self._role
        if (
            isinstance(role, Follower)
            and role.leader_id in {None, message.sender}
            and replica.is_voter
            and not replica.is_busy
        ):
            self._role = Candidate(replica, forced=True)

    def _on_read_request(self, message: Message, request: ReadRequest) -> None:
        role = self._role
        if not isinstance(role, Leader) or message.sender not in role.progress or self._transfer:
            self._replica.counters["stale"] += 1
            return
        if request.suspect:
            role.restart_stream(self._replica, message.sender, request.batch)
        role.reads.add_batch(message.sender, request.batch)

    def _on_read_reply(self, message: Message, reply: ReadReply) -> None:
        if self._role.leader_id == message.sender:
            self._suspicion.on_reply(reply)
            self._reads.let_pass(reply.index, self._reads.forwarded.on_reply(reply))

    def _rehabilitate(self, role: Follower, out: Output) -> None:
        """Trust this node again when it has caught up with a live leader, and that is durable."""
        replica, leader_id = self._replica, role.leader_id
        if self._recovery_write is None and leader_id is not None:
            self._suspicion.ask(replica, self._reads.forwarded, leader_id)
            if self._suspicion.is_over(replica):
                if replica.voted_for is None:
                    replica.adopt(replica.term, leader_id)
                self._recovery_write = replica.ledger.barrier()
        if self._recovery_write is not None and replica.ledger.is_durable(self._recovery_write):
            replica.is_suspect = False
            replica.counters["recoveries"] += 1
            out.recovered = True

    def _serve_reads(self) -> None:
        """Have reads confirmed, and let those pass that are."""
        replica, role, reads = self._replica, self._role, self._reads
        if isinstance(role, Leader):
            role.confirm_reads(replica, reads)
        if reads.forwarded:
            if not isinstance(role, Follower):
                reads.fail(reads.forwarded.give_up(), "the leader is not heard any more")
            elif role.leader_id is not None:
                reads.forwarded.ask(replica, role.leader_id)
        reads.applied(replica.applied_index)

    # ------------------------------------------------------------------ roles and timers

    def _follow(self, term: Term, leader_id: NodeId | None) -> Follower:
        replica, before = self._replica, self._role
        if term > replica.term:
            replica.adopt(term, None)
        if isinstance(before, Follower):
            deadline_ms = before.deadline_ms
        elif isinstance(before, Candidate | PreCandidate):
            deadline_ms = before.election_deadline_ms
        else:
            deadline_ms = replica.patience()
            self._lose_office("the leader lost its office", replica.commit_index)
        self._role = Follower(leader_id, deadline_ms)
        return self._role

    def _fire_timer(self) -> None:
        replica, role = self._replica, self._role
        if role.deadline_ms is None or replica.now_ms < role.deadline_ms:
            return
        if isinstance(role, Leader):
            if not role.on_deadline(replica):
                self._follow(replica.term, None)
        elif role.on_deadline(replica):
            others = [voter for voter in replica.voters if voter != replica.identity.node_id]
            ask = replica.options.pre_vote and others
            self._role = PreCandidate(replica) if ask else Candidate(replica)

    def _lead(self, role: Leader, out: Output) -> None:
        """Go on with what a leader does by itself."""
        replica = self._replica
        if self._transfer is None:
            role.reconfigure(replica)
            self._note_changes(role)
        role.replicate(replica)
        if self._transfer is not None:
            self._transfer.advance(replica, role.progress)
            if self._transfer.asked:
                role.contact.void_lease(for_good=True)
        out.send_snapshot, role.snapshots = role.snapshots, []
        if role.is_done(replica):
            role.say_commit(replica)
            self._follow(replica.term, None)

    def _end_transfer(self) -> None:
        """Tell who waits for a transfer how it has ended, once it has."""
        transfer, role = self._transfer, self._role
        if transfer is None:
            return
        leads = isinstance(role, Leader)
        outcome = transfer.outcome(self._replica, role.leader_id, leads=leads)
        if outcome is not None:
            self._transferred.append((transfer.token, outcome))
            self._transfer = None

    def _note_changes(self, role: Leader) -> None:
        """Follow the entries that end a change of the membership, and end what was given up."""
        changes = role.reconfiguration
        for token, proposed in changes.proposed:
            self._proposals.add(token, proposed)
        self._proposals.finished += changes.withdrawn
        changes.proposed, changes.withdrawn = [], []

    def _lose_office(self, reason: str, committed: LogIndex) -> None:
        """End what only a leader can bring to its end."""
        if isinstance(self._role, Leader):
            self._reads.fail(self._role.reads.give_up(), reason)
            self._role.reconfiguration.give_up(self._replica, reason)
            self._note_changes(self._role)
        self._proposals.abandon(committed, reason)

    def _decide(self, result: VoteResult) -> None:
        if result is VoteResult.WON:
            self._role = Leader(self._replica)
        elif result is VoteResult.LOST:
            self._follow(self._replica.term, None)

    def _next_apply(self) -> tuple[LogIndex, LogIndex] | None:
        replica = self._replica
        if replica.installing is not None or self._apply_handed > replica.applied_index:
            return None
        last = min(replica.commit_index, replica.ledger.durable_index)
        if last <= replica.applied_index:
            return None
        self._apply_handed = last
        return LogIndex(replica.applied_index + 1), last
