"""What a node is in any role: its term and vote, its log, what is committed, what goes out.

The role objects (`follower`, `candidate`, `leader`) hold only what their role needs and work on the
one `Replica` of their node. Everything that changes the hard state or the log passes through here,
so memory and the pending write cannot drift apart.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from conveyor_raft.core.durability import WriteLedger
from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import LoadedState, retained_log
from conveyor_raft.core.log import RaftLog
from conveyor_raft.core.membership import Membership, MembershipHistory
from conveyor_raft.core.messages import AppendAck, Body, Message, SnapshotMeta
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.types import (
    EntryKind,
    HardState,
    Identity,
    Incarnation,
    LogIndex,
    Member,
    NodeId,
    RandomSource,
    Term,
)
from conveyor_raft.errors import InvariantViolation

PROMISES_MAX = 1_024
"""How many messages may wait for the disk."""


class Replica:
    """The part of a node that outlives its roles. `now_ms` is the time of the current batch."""

    __slots__ = (
        "_install_write",
        "_promised",
        "applied_index",
        "commit_index",
        "configurations",
        "counters",
        "departing",
        "failed",
        "identity",
        "installing",
        "is_suspect",
        "ledger",
        "log",
        "loyal_to",
        "loyal_until_ms",
        "messages",
        "messages_after",
        "now_ms",
        "options",
        "random",
        "snapshot",
        "term",
        "voted_for",
    )

    def __init__(
        self,
        identity: Identity,
        options: CoreOptions,
        random: RandomSource,
        loaded: LoadedState,
        now_ms: int,
    ) -> None:
        """Continue from what the disk remembers."""
        self.identity = identity
        self.options = options
        self.random = random
        self.now_ms = now_ms
        self.term, self.voted_for = loaded.hard_state
        self.is_suspect = loaded.suspect
        self.snapshot = loaded.snapshot
        self.log: RaftLog = retained_log(loaded)
        self.ledger = WriteLedger(self.log.last_index)
        self.configurations = MembershipHistory()
        if self.snapshot is not None:
            self.configurations.append(self.snapshot.index, self.snapshot.membership)
        start = LogIndex(0) if self.snapshot is None else self.snapshot.index
        if self.log.last_index > start:
            for frame in self.log.frames(LogIndex(start + 1), self.log.last_index):
                self._activate(frame)
        self.commit_index = self.applied_index = start
        self.loyal_to: NodeId | None = None
        self.loyal_until_ms = now_ms
        if options.lease_reads:  # for whom this node was loyal in an earlier life is not known
            self.loyal_until_ms += options.election_timeout_min_ms
        self.departing: dict[NodeId, Member] = {}  # removed, and still spoken to by this leader
        self.installing: SnapshotMeta | None = None
        self._install_write: int | None = None
        self.messages: list[Message] = []
        self.messages_after: list[tuple[int, Message]] = []
        self._promised: deque[int] = deque()  # the writes that messages wait for, here or outside
        self.counters: Counter[str] = Counter()
        self.failed = False  # a write has failed: what is on disk is not known

    @property
    def membership(self) -> Membership | None:
        """The configuration in force."""
        return self.configurations.active

    @property
    def is_voter(self) -> bool:
        """Whether this node counts."""
        return self.identity.node_id in self.voters

    @property
    def may_campaign(self) -> bool:
        """Whether this node may ask for votes.

        A voter that appended its own removal, and does not know it committed, is still needed: the
        others may not be able to elect anybody without its log (Ongaro 2014, §4.2.2).
        """
        own = self.identity.node_id
        for index, membership in reversed(self.configurations.entries):
            if own in membership.electors:
                return True
            if index <= self.commit_index:
                break
        return False

    @property
    def voters(self) -> Sequence[NodeId]:
        """Whose votes count, in either half, in the order of their ids; none on an empty node."""
        membership = self.configurations.active
        return () if membership is None else membership.electors

    @property
    def halves(self) -> Sequence[Sequence[NodeId]]:
        """The voters as they are counted: one group, or two while the configuration is joint."""
        membership = self.configurations.active
        return () if membership is None else membership.halves

    @property
    def peers(self) -> Sequence[NodeId]:
        """The other members, learners as well, in the order of their ids."""
        membership = self.configurations.active
        if membership is None:
            return ()
        own = self.identity.node_id
        return [member.node_id for member in membership.members if member.node_id != own]

    @property
    def is_busy(self) -> bool:
        """Whether this node has better things to do than to lead.

        It is suspect, its disk is still writing entries, a snapshot is being installed, or so much
        is committed and not applied that as a leader it would accept nothing.
        """
        return (
            self.is_suspect
            or self.installing is not None
            or self.ledger.durable_index < self.log.last_index
            or self.commit_index - self.applied_index >= self.options.max_uncommitted_entries
        )

    def heard_leader(self, leader_id: NodeId) -> None:
        """Be loyal to this leader for the shortest time in which it could be replaced.

        Loyalty outlives the role and the term: a leader that counts on it learns of neither.
        """
        self.loyal_to = leader_id
        self.loyal_until_ms = self.now_ms + self.options.election_timeout_min_ms

    def is_loyal_against(self, node_id: NodeId) -> bool:
        """Whether a leader was heard so lately that nobody but itself should be elected."""
        return self.now_ms < self.loyal_until_ms and node_id != self.loyal_to

    def adopt(self, term: Term, voted_for: NodeId | None) -> None:
        """Enter a term, or vote in the current one; both become durable in one write."""
        if term < self.term or (term == self.term and self.voted_for not in {None, voted_for}):
            raise InvariantViolation(
                f"term {term} with vote {voted_for} must not replace term {self.term} with vote"
                f" {self.voted_for}"
            )
        if (term, voted_for) != (self.term, self.voted_for):
            self.term, self.voted_for = term, voted_for
            self.ledger.set_hard_state(HardState(term, voted_for))

    def append(self, frame: Frame) -> None:
        """Add a frame to the log, and to the pending write."""
        self.log.append(frame)
        self.ledger.append(frame)
        self._activate(frame)

    def truncate_from(self, index: LogIndex) -> None:
        """Cut off entries that a leader has replaced; a committed one never is."""
        if index <= self.commit_index:
            raise InvariantViolation(
                f"a leader of term {self.term} replaces entry {index}, committed up to"
                f" {self.commit_index}"
            )
        self.log.truncate_from(index)
        self.ledger.truncate_from(index)
        self.configurations.truncate_from(index)
        self.counters["truncations"] += 1

    def install(self, meta: SnapshotMeta) -> None:
        """Let a snapshot take the place of the whole log."""
        self.ledger.install(meta)
        self.log = RaftLog(meta.last_id)
        self.configurations = MembershipHistory([(meta.index, meta.membership)])
        self.snapshot = self.installing = meta
        self._install_write = self.ledger.barrier()
        self.commit_index = meta.index
        self.counters["snapshots_installed"] += 1

    def next_install(self) -> SnapshotMeta | None:
        """Return, once, the accepted snapshot after it has become durable."""
        if self._install_write is None or not self.ledger.is_durable(self._install_write):
            return None
        self._install_write = None
        return self.installing

    def installed(self, meta: SnapshotMeta) -> None:
        """The state machine has been restored from an accepted snapshot."""
        self.applied_index = meta.index
        if self.installing == meta:
            self.installing = None

    @property
    def snapshot_due(self) -> bool:
        """Whether enough was applied since the last snapshot for a new one."""
        start = LogIndex(0) if self.snapshot is None else self.snapshot.index
        options = self.options
        return self.applied_index > start and (
            self.applied_index - start >= options.snapshot_interval_entries
            or self.log.bytes_after(start) - self.log.bytes_after(self.applied_index)
            >= options.snapshot_interval_bytes
        )

    def adopt_snapshot(self, meta: SnapshotMeta, needed_after: LogIndex | None) -> LogIndex | None:
        """Forget the log behind a new snapshot, but for the trail; return how far, if at all.

        The trail is longer if somebody needs the log from further back, and can still be served.
        """
        self.snapshot = meta
        end, options = meta.index, self.options
        before = self.log.base.index
        trail_from = LogIndex(end - options.snapshot_trailing_entries)
        if needed_after is not None and self._can_spare(needed_after, end):
            self.log.compact(min(trail_from, needed_after))
        else:
            self.log.compact(trail_from)
            trail = self.log.bytes_after(self.log.base.index) - self.log.bytes_after(end)
            if trail > options.snapshot_trailing_bytes:
                self.log.compact(end)
        self.configurations.compact(end)
        return self.log.base.index if self.log.base.index > before else None

    def _can_spare(self, after: LogIndex, end: LogIndex) -> bool:
        log, options = self.log, self.options
        return (
            log.base.index <= after < end
            and end - after <= options.snapshot_spared_entries
            and log.bytes_after(after) - log.bytes_after(end) <= options.snapshot_spared_bytes
        )

    def commit_to(self, index: LogIndex) -> None:
        """Everything up to the index is committed."""
        if not self.commit_index <= index <= self.log.last_index:
            raise InvariantViolation(
                f"commit index {index} does not follow {self.commit_index} in a log that is"
                f" {self.log}"
            )
        self.commit_index = index

    def send(self, to: NodeId, body: Body) -> None:
        """Have a message leave at once."""
        self.messages.append(self.envelope(to, body))

    def send_after(self, write_id: int, to: NodeId, body: Body) -> None:
        """Have a message leave when the write is durable; at once if there is none (0).

        Behind a disk that stands still no more than `PROMISES_MAX` gather; the rest is lost, as
        messages may be.
        """
        if not write_id:
            self.send(to, body)
            return
        promised = self._promised
        while promised and self.ledger.is_durable(promised[0]):
            promised.popleft()
        if len(promised) >= PROMISES_MAX:
            self.counters["promises_dropped"] += 1
            return
        promised.append(write_id)
        self.messages_after.append((write_id, self.envelope(to, body)))

    def promise(self, to: NodeId, body: Body) -> None:
        """Have a message leave when everything that this node knows now is durable."""
        self.send_after(self.ledger.barrier(), to, body)

    def acknowledge(self, to: NodeId, session: int, match: LogIndex) -> None:
        """Promise a leader that this log equals its own up to `match`.

        Of several such promises in one batch, the furthest says all.
        """
        write_id = self.ledger.barrier()
        if write_id and self.messages_after:
            waits_for, last = self.messages_after[-1]
            body = last.body
            if (
                isinstance(body, AppendAck)
                and (waits_for, last.to, last.term) == (write_id, to, self.term)
                and body.session == session
            ):
                self.messages_after.pop()
                self._promised.pop()
                match = max(match, body.match)
        self.send_after(write_id, to, AppendAck(session, match))

    def reveal_term(self, to: NodeId, body: Body) -> None:
        """Have a message leave that promises nothing but the term of its envelope."""
        self.send_after(self.ledger.term_barrier(), to, body)

    def patience(self) -> int | None:
        """Draw until when to wait for a leader; who may not campaign waits for ever."""
        if not self.may_campaign:
            return None
        return self.election_deadline() + self.options.priority_delay_ms

    def election_deadline(self) -> int:
        """Draw the end of an election, or of the patience that comes before it."""
        options = self.options
        return self.now_ms + self.random.randint(
            options.election_timeout_min_ms, options.election_timeout_max_ms
        )

    def timestamp_ms(self, wall_ms: int = 0) -> int:
        """Return a timestamp for a new entry: the wall time, but never before the last entry's."""
        last = self.log.last_timestamp_ms
        if last is None:
            last = self.snapshot.timestamp_ms if self.snapshot is not None else 0
        return max(wall_ms, last)

    def envelope(self, to: NodeId, body: Body) -> Message:
        """Address a body to another node, in the current term."""
        cluster_id, node_id, incarnation = self.identity
        membership = self.configurations.active
        member = (membership and membership.get(to)) or self.departing.get(to)
        meant = Incarnation(b"") if member is None else member.incarnation
        return Message(cluster_id, node_id, incarnation, to, self.term, body, meant)

    def _activate(self, frame: Frame) -> None:
        if frame.kind is EntryKind.CONFIG:
            for entry in frame.entries():
                self.configurations.append(entry.index, Membership.decode(entry.payload))
