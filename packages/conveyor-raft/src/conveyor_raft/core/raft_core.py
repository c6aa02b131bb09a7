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
* A write that failed ends the node's part in the cluster: it cannot know any more what is on disk.
* A message that is not meant for this node in this life of it (`envelope`) changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from conveyor_raft.core import ballot, envelope
from conveyor_raft.core.applying import Applying
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
from conveyor_raft.core.quorum import VoteResult
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.requests import Requests
from conveyor_raft.core.role import Role
from conveyor_raft.core.suspicion import Suspicion
from conveyor_raft.core.types import (
    Identity,
    LogIndex,
    NodeId,
    ProposeResult,
    RaftRole,
    RandomSource,
    Refused,
    Term,
)
from conveyor_raft.core.views import CoreViews
from conveyor_raft.errors import InvariantViolation


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
        self._role: Role = Follower(None, deadline_ms)
        self._requests = Requests(replica)
        self._suspicion = Suspicion()
        self._applying = Applying(replica)
        self._compact: LogIndex | None = None
        self._soft = SoftState(RaftRole.FOLLOWER, None, replica.term)
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
        if replica.failed or not envelope.is_for(replica, message):
            return
        body = message.body
        if message.term > replica.term:
            leads = isinstance(self._role, Leader)
            if isinstance(body, RequestVote) and ballot.is_unwelcome(
                replica, message, body, leads=leads
            ):
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
        return self._requests.propose(self._role, payloads, wall_ms=wall_ms, token=token)

    def change_membership(self, change: MembershipChange, *, token: int) -> ProposeResult:
        """Begin to change who belongs to the cluster, if this node leads and nothing else changes.

        The token ends as `Applied` when the last configuration of the change is in force for good.

        Raises:
            InvalidChange: the change makes no sense for the membership as it is.
        """
        return self._requests.change_membership(self._role, change, token=token)

    def read(self, *, token: int, lease: bool = False) -> Refused | None:
        """Ask when a read may run here; None: `Output.reads` will name the token exactly once.

        It then sees everything that was acknowledged before this call. With `lease` only a leader
        can say so, and says it at once or not at all; call `tick` with the present time before.
        """
        return self._requests.read(self._role, token=token, lease=lease)

    def transfer(self, to: NodeId | None = None, *, token: int) -> NodeId | Refused:
        """Begin to hand the office over, to the best follower if none is named; return to whom.

        Then `Output.transfers` will name the token exactly once. Until it does, proposals and reads
        are refused with the target as hint.
        """
        return self._requests.hand_over(self._role, to, token=token)

    def on_written(self, write_id: int) -> None:
        """Everything up to and including this write is durable."""
        replica, role = self._replica, self._role
        if replica.failed:
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
        self._replica.failed = True
        self._requests.end_all(self._role, write_id)
        self._role = Follower(None, None)

    def on_applied(self, index: LogIndex) -> None:
        """The state machine has applied everything up to the index."""
        if self._applying.applied(index):
            self._requests.proposals.applied(index)

    def describe_snapshot(self, index: LogIndex) -> SnapshotMeta:
        """Return the meta of a snapshot of the state machine as it is after the applied index."""
        return self._applying.describe(index)

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
        self._applying.restored(meta.index)
        self._requests.proposals.skipped(meta.index)
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
        if not replica.failed:
            self._fire_timer()
            self._requests.end_transfer(self._role)
            if isinstance(self._role, Leader):
                self._lead(self._role, out)
            if replica.is_suspect and isinstance(self._role, Follower):
                forwarded = self._requests.reads.forwarded
                out.recovered = self._suspicion.lift(replica, forwarded, self._role.leader_id)
            self._requests.serve_reads(self._role)
            if write:
                out.write = replica.ledger.take_write(replica.log.last_index)
            out.messages, replica.messages = replica.messages, []
            out.messages_after, replica.messages_after = replica.messages_after, []
            out.install = replica.next_install()
            out.apply = self._applying.next_range()
            out.compact_through, self._compact = self._compact, None
        self._requests.report(out)
        soft = SoftState(self._role.role, self._role.leader_id, replica.term)
        if soft != self._soft:
            out.soft = self._soft = soft
        return out

    # ------------------------------------------------------------------ messages

    def _on_request_vote(self, message: Message, request: RequestVote) -> None:
        granted = ballot.answer(self._replica, message, request)
        if granted and isinstance(self._role, Follower):
            self._role.heard(self._replica)

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
        self._requests.on_read_request(self._role, message, request)

    def _on_read_reply(self, message: Message, reply: ReadReply) -> None:
        if self._role.leader_id == message.sender:
            self._suspicion.on_reply(reply)
            self._requests.on_read_reply(reply)

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
            reason = "the leader lost its office"
            self._requests.lose_office(before, reason, replica.commit_index)
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
        self._requests.reconfigure(role)
        role.replicate(replica)
        self._requests.advance_transfer(role)
        out.send_snapshot, role.snapshots = role.snapshots, []
        if role.is_done(replica):
            role.say_commit(replica)
            self._follow(replica.term, None)

    def _decide(self, result: VoteResult) -> None:
        if result is VoteResult.WON:
            self._role = Leader(self._replica)
        elif result is VoteResult.LOST:
            self._follow(self._replica.term, None)
