"""The node that orders entries and has them stored by a majority (Raft §5.3, §5.4.2).

Rules kept:

* Its term begins with an entry of its own, because only entries of the own term are committed by
  counting copies; older ones are committed with them (Figure 8 of the paper).
* Its own copy counts like any other: when it is durable, not before.
* A heartbeat never carries a commit index beyond what the receiver is known to have.
* It never deletes from its log.
* Without a majority in reach it steps down: others may have elected somebody whom it cannot hear.
* A configuration counts from the moment it is appended; a leader that is not in it goes on leading,
  without counting itself, until it is committed, and lets the others know before it goes.
* Entries leave for the followers at once, while the own disk is still writing; frames are handed on
  as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.contact import Contact
from conveyor_raft.core.frames import FRAME_OVERHEAD_BYTES, LENGTH_BYTES, Frame
from conveyor_raft.core.messages import (
    AppendAck,
    AppendConflict,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
)
from conveyor_raft.core.output import SnapshotSend
from conveyor_raft.core.progress import Probe, Progress, Replicate, Snapshot
from conveyor_raft.core.quorum import joint_quorum_index
from conveyor_raft.core.reads import ReadRounds, Reads
from conveyor_raft.core.reconfiguration import Reconfiguration, active_membership
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import (
    EntryKind,
    LogId,
    LogIndex,
    NodeId,
    RaftRole,
    RefusedReason,
)
from conveyor_raft.errors import InvariantViolation

_FAREWELL_ELECTIONS = 2
"""For how many election timeouts a removed member is told of its removal."""


class Leader:
    """What the followers have, and when the next heartbeat is due.

    `departing`: members that were removed and have not been told yet, with when to give up.
    """

    __slots__ = (
        "_first_index",
        "_restarted",
        "_sessions",
        "contact",
        "deadline_ms",
        "departing",
        "leader_id",
        "progress",
        "reads",
        "reconfiguration",
        "snapshots",
    )

    role = RaftRole.LEADER

    def __init__(self, replica: Replica) -> None:
        """Append the entry that begins the term; what the followers have is not known yet."""
        self.leader_id = replica.identity.node_id
        self._first_index = LogIndex(replica.log.last_index + 1)
        self.progress: dict[NodeId, Progress] = {}
        self.departing: dict[NodeId, int | None] = {}
        replica.departing = {}
        self._sessions = 0
        self._restarted: dict[NodeId, int] = {}
        self._meet(replica)
        self.reconfiguration = Reconfiguration()
        self.contact = Contact(replica)
        self.reads = ReadRounds()
        self.snapshots: list[SnapshotSend] = []
        self.deadline_ms = replica.now_ms + replica.options.heartbeat_interval_ms
        self._append(replica, EntryKind.NOOP, [b""], replica.timestamp_ms())
        replica.counters["elections_won"] += 1

    def has_room(self, replica: Replica, entries: int, size: int) -> bool:
        """Whether a proposal still fits into what may be on its way; an empty way takes any."""
        log, applied, options = replica.log, replica.applied_index, replica.options
        waiting = log.last_index - applied
        return waiting == 0 or (
            waiting + entries <= options.max_uncommitted_entries
            and log.bytes_after(applied) + size <= options.max_uncommitted_bytes
        )

    def propose(self, replica: Replica, payloads: Sequence[bytes], wall_ms: int) -> None:
        """Append commands, as few frames as the batch limit allows, all with one timestamp."""
        timestamp_ms = replica.timestamp_ms(wall_ms)
        limit = replica.options.max_batch_bytes
        batch: list[bytes] = []
        size = FRAME_OVERHEAD_BYTES
        for payload in payloads:
            added = len(payload) + LENGTH_BYTES
            if batch and size + added > limit:
                self._append(replica, EntryKind.COMMAND, batch, timestamp_ms)
                batch, size = [], FRAME_OVERHEAD_BYTES
            batch.append(payload)
            size += added
        self._append(replica, EntryKind.COMMAND, batch, timestamp_ms)

    def change_membership(
        self, replica: Replica, change: MembershipChange, token: int
    ) -> RefusedReason | None:
        """Take up a change, or say why not.

        Raises:
            InvalidChange: it makes no sense for the membership as it is.
        """
        refusal = self.reconfiguration.refusal(replica, change, self._first_index)
        if refusal is None:
            self.reconfiguration.begin(change, token)
            self.reconfigure(replica)
        return refusal

    def reconfigure(self, replica: Replica) -> None:
        """Append the next configuration on the way to what was wished, when it is time."""
        membership = self.reconfiguration.next(replica, self.progress, self._first_index)
        if membership is None:
            return
        before = active_membership(replica)
        self.contact.void_lease()
        self._append(replica, EntryKind.CONFIG, [membership.encode()], replica.timestamp_ms())
        replica.counters["configurations"] += 1
        for member in before.members:
            after = membership.get(member.node_id)
            if member.node_id != self.leader_id and after is None:
                self.departing[member.node_id] = None
                replica.departing[member.node_id] = member
        self._meet(replica)
        self.count_copies(replica)

    def is_done(self, replica: Replica) -> bool:
        """Whether the configuration that this node is not counted in is committed."""
        since = replica.configurations.active_since
        return not replica.is_voter and since <= replica.commit_index

    def on_deadline(self, replica: Replica) -> bool:
        """Tell every follower that the leader is alive; return False if it should step down."""
        if replica.options.check_quorum and not self.contact.in_reach(replica):
            replica.counters["quorums_lost"] += 1
            return False
        self.deadline_ms = replica.now_ms + replica.options.heartbeat_interval_ms
        self.say_commit(replica)
        if self.departing:
            self._part(replica)
        return True

    def say_commit(self, replica: Replica) -> None:
        """Send every follower a heartbeat."""
        beat = self.contact.next_beat(replica)
        for peer, progress in self.progress.items():
            commit = min(progress.match, replica.commit_index)
            replica.send(peer, Heartbeat(progress.session, commit, beat))

    def restart_stream(self, replica: Replica, peer: NodeId, batch: int) -> None:
        """Forget what a peer has acknowledged, once for each of its requests to do so."""
        if self._restarted.get(peer) == batch:
            return
        self._restarted[peer] = batch
        self._sessions += 1
        self.progress[peer] = Progress(self._sessions, LogIndex(replica.log.last_index + 1))
        replica.counters["streams_restarted"] += 1

    def is_settled(self, replica: Replica) -> bool:
        """Whether an entry of this term is committed: now the leader knows what is."""
        return replica.commit_index >= self._first_index

    def confirm_reads(self, replica: Replica, reads: Reads) -> None:
        """Let those reads pass for which this leader has proved that it leads; begin what is due.

        A sole voter proves it by being one, so its round ends where it begins.
        """
        for _ in range(2):
            confirmed = self.reads.end(replica, self.contact)
            if confirmed is not None:
                reads.let_pass(*confirmed)
            if self.reads.is_due() and self.is_settled(replica):
                self.say_commit(replica)
                self.reads.begin(self.contact.beat, replica.commit_index)

    def on_ack(self, replica: Replica, message: Message, ack: AppendAck) -> None:
        """A follower has stored entries: count them."""
        progress = self._progress_of(replica, message, ack.session)
        if progress is None:
            return
        if ack.match > replica.log.last_index:
            replica.counters["malformed"] += 1
            return
        news = progress.acknowledge(ack.match)
        progress.check(replica.log.last_index)
        if news:
            self.count_copies(replica)

    def on_conflict(self, replica: Replica, message: Message, conflict: AppendConflict) -> None:
        """A follower's log differs: go back to where it may agree."""
        progress = self._progress_of(replica, message, conflict.session)
        if progress is None:
            return
        if not progress.backtrack(conflict, replica.log.last_of_term(conflict.conflict_term)):
            replica.counters["stale"] += 1
        progress.check(replica.log.last_index)

    def on_heartbeat_reply(self, replica: Replica, message: Message, reply: HeartbeatReply) -> None:
        """A follower is there: go on where silence had stopped the stream.

        If everything was sent and not everything is acknowledged, an empty message behind the last
        one asks whether it all arrived; if not, the conflict that it meets brings it to light.
        """
        progress = self._progress_of(replica, message, reply.session)
        if progress is None:
            return
        self.contact.answered(replica, message.sender, reply.beat)
        state = progress.state
        if isinstance(state, Probe):
            state.waiting = False
        elif isinstance(state, Replicate) and progress.match < progress.next - 1:
            self._send(replica, message.sender, progress, [])

    def on_snapshot_sent(
        self, replica: Replica, peer: NodeId, session: int, *, delivered: bool
    ) -> None:
        """The stream has ended; look from its end on, or where the follower was before."""
        progress = self.progress.get(peer)
        if progress is None or progress.session != session:
            return
        state = progress.state
        if isinstance(state, Snapshot):
            behind = LogIndex(state.index + 1) if delivered else LogIndex(progress.match + 1)
            progress.search(behind, waiting=True)

    def on_peer(self, peer: NodeId, *, up: bool) -> None:
        """A lost connection may have lost messages: look again; a new one need not wait."""
        progress = self.progress.get(peer)
        if progress is None:
            return
        if isinstance(progress.state, Replicate) and not up:
            progress.search(LogIndex(progress.match + 1), waiting=True)
        elif isinstance(progress.state, Probe) and up:
            progress.state.waiting = False

    def needed_after(self, replica: Replica) -> LogIndex | None:
        """Return behind which entry followers that are alive still need the log; None: nobody."""
        needed = None
        for peer, progress in self.progress.items():
            if not self.contact.is_alive(replica, peer):
                continue
            state, behind = progress.state, progress.match
            if isinstance(state, Snapshot):
                if replica.now_ms - state.since_ms >= replica.options.snapshot_hold_ms:
                    continue
                behind = state.index
            needed = behind if needed is None else min(needed, behind)
        return needed

    def count_copies(self, replica: Replica) -> None:
        """Commit what a majority has stored, if it reaches into this leader's own term."""
        durable = {
            voter: replica.ledger.durable_index
            if voter == self.leader_id
            else self.progress[voter].match
            for voter in replica.voters
        }
        stored = joint_quorum_index(replica.halves, durable)
        if stored >= self._first_index and stored > replica.commit_index:
            replica.commit_to(stored)

    def replicate(self, replica: Replica) -> None:
        """Send every follower what it may get now."""
        last = replica.log.last_index
        for peer, progress in self.progress.items():
            state = progress.state
            if isinstance(state, Probe):
                if not state.waiting:
                    state.waiting = True
                    self._send_next(replica, peer, progress)
            elif isinstance(state, Replicate):
                while progress.next <= last and not state.full(replica.options):
                    if not self._send_next(replica, peer, progress):
                        break

    def _send_next(self, replica: Replica, peer: NodeId, progress: Progress) -> bool:
        """Send the next entries, or have a snapshot sent if they are gone; tell which."""
        log = replica.log
        frames: list[Frame] = []
        if progress.next > log.base.index:
            frames = log.frames(progress.next, log.last_index, replica.options.max_batch_bytes)
        if not self._send(replica, peer, progress, frames):
            return False
        if frames and isinstance(progress.state, Replicate):
            progress.next = LogIndex(frames[-1].last_index + 1)
            progress.state.add(frames[-1].last_index, sum(frame.size for frame in frames))
        return True

    def _send(
        self, replica: Replica, peer: NodeId, progress: Progress, frames: Sequence[Frame]
    ) -> bool:
        prev_index = LogIndex(progress.next - 1)
        prev_term = replica.log.term_at(prev_index)
        if prev_term is None:
            self._send_snapshot(replica, peer, progress)
            return False
        append = AppendEntries(
            progress.session, LogId(prev_index, prev_term), replica.commit_index, tuple(frames)
        )
        replica.send(peer, append)
        return True

    def _send_snapshot(self, replica: Replica, peer: NodeId, progress: Progress) -> None:
        meta = replica.snapshot
        if meta is None:
            raise InvariantViolation(
                f"the log begins at {replica.log.first_index} without snapshot"
            )
        progress.state = Snapshot(meta.index, replica.now_ms)
        message = replica.envelope(peer, InstallSnapshot(progress.session, meta))
        self.snapshots.append(SnapshotSend(peer, meta, progress.session, message))
        replica.counters["snapshots_sent"] += 1

    def _progress_of(self, replica: Replica, message: Message, session: int) -> Progress | None:
        progress = self.progress.get(message.sender)
        if progress is None or progress.session != session:
            replica.counters["stale"] += 1
            return None
        progress.answers += 1
        self.contact.heard(message.sender, replica.now_ms)
        return progress

    def _meet(self, replica: Replica) -> None:
        """Begin to replicate to new members, each in a session that no life before it had."""
        for peer in replica.peers:
            if peer in self.progress and peer not in self.departing:
                continue
            self.departing.pop(peer, None)
            replica.departing.pop(peer, None)
            self._sessions += 1
            self.progress[peer] = Progress(self._sessions, self._first_index)

    def _part(self, replica: Replica) -> None:
        """Stop replicating to removed members that know it, or had the time to."""
        commit = replica.commit_index
        since = replica.configurations.active_since
        for peer, give_up_ms in list(self.departing.items()):
            if since > commit:
                continue
            if give_up_ms is None:
                patience_ms = replica.options.election_timeout_max_ms * _FAREWELL_ELECTIONS
                self.departing[peer] = replica.now_ms + patience_ms
            elif self.progress[peer].match >= since or replica.now_ms >= give_up_ms:
                del self.departing[peer], self.progress[peer], replica.departing[peer]

    @staticmethod
    def _append(
        replica: Replica, kind: EntryKind, payloads: Sequence[bytes], timestamp_ms: int
    ) -> None:
        first = LogIndex(replica.log.last_index + 1)
        replica.append(Frame.build(first, replica.term, timestamp_ms, kind, payloads))
