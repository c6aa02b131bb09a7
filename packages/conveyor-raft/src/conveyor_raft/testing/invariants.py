"""What must hold after every event, each rule under the name by which the literature knows it.

The checker never asks a core whether it is right. It keeps its own account: who led which term,
which entry stands under which (index, term), what was committed and by whom, what each node voted,
and it looks at the disks itself. Every check costs the same however long the run is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import (
    AppendAck,
    AppendEntries,
    Heartbeat,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from conveyor_raft.core.output import Write
from conveyor_raft.core.progress import Replicate
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.replica import PROMISES_MAX
from conveyor_raft.core.types import Applied, EntryKind, NodeId, Outcome, Proposed, RaftRole, Term
from conveyor_raft.testing.configurations import ConfigurationRules, is_quorum
from conveyor_raft.testing.elections import ElectionRules
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.violated import Violated

_OF_ELECTIONS = PreVote | PreVoteReply | RequestVote | VoteReply | TimeoutNow


class Seen(NamedTuple):
    """A node as it was after its last event; it may only go forward within one life."""

    life: int
    term: int
    commit: int
    applied: int
    leading_last: int
    leading_last_term: int
    membership: Membership | None


class Entry(NamedTuple):
    """One entry as it was first seen on its way to any disk."""

    previous_term: int
    kind: EntryKind
    payload: bytes


class Invariants:
    """The account of one run."""

    def __init__(self, nodes: Mapping[int, SimulatedNode], max_inflight: int) -> None:
        """Begin with a cluster in which nothing has happened yet."""
        self._nodes = nodes
        self._configurations = ConfigurationRules(nodes)
        self._max_inflight = max_inflight
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, bytes, int], int] = {}
        self._entries: dict[tuple[int, int], Entry] = {}
        self._states: dict[int, int] = {0: 0}
        self.elections = ElectionRules()
        self._seen: dict[int, Seen] = {}
        self._open: dict[int, tuple[int, Proposed, Sequence[bytes]]] = {}
        self._refused: set[bytes] = set()
        self.committed: list[int] = [0]  # the term of each committed entry, by index
        self._committed_in: list[int] = [0]  # the term of the leader that committed it first
        self._deciders: list[Membership | None] = [None]  # by which voters
        for node in nodes.values():
            for frame in node.disk.frames:
                self._register(frame, 0)
            self.after_event(node)

    # -------------------------------------------------------------- what the nodes do

    def on_leader(self, node: SimulatedNode) -> None:
        """Election safety, leader completeness."""
        core = node.core
        term = core.term
        first = self._leaders.setdefault(term, node.node_id)
        if first != node.node_id:
            raise Violated("election safety", f"nodes {first} and {node.node_id} lead term {term}")
        self._configurations.on_leader(node)
        # What a later term committed does not concern one that is won late: it can do no harm.
        last = bisect_left(self._committed_in, term) - 1
        if not _holds(core, last, self.committed[last]):
            raise Violated(
                "leader completeness",
                f"node {node.node_id} leads term {term} without the committed entry {last} of term"
                f" {self.committed[last]}; its log ends at {core.last_id}",
            )

    def on_write(self, node: SimulatedNode, write: Write) -> None:
        """Log matching: one (index, term), one entry, and one entry before it."""
        for frame in write.frames:
            previous = node.core.term_at(frame.first_index - 1)  # type: ignore[arg-type]
            self._register(frame, previous)
            if frame.kind is EntryKind.CONFIG:
                self._configurations.register(frame)
                self._configurations.on_append(node, frame)

    def on_release(self, node: SimulatedNode, message: Message) -> None:
        """Vote durability and acknowledged-is-durable, when a message leaves its node."""
        body = message.body
        if isinstance(body, _OF_ELECTIONS):
            self.elections.on_release(node, message)
        if isinstance(body, AppendAck):
            self._check_ack(node, message, body)
        elif isinstance(body, RequestVote):
            self._configurations.on_campaign(node)
            self._check_vote(node, message.term, node.node_id)
        elif isinstance(body, VoteReply):
            if body.granted:
                self._check_vote(node, message.term, message.to)
        elif isinstance(body, AppendEntries | Heartbeat):
            leader = self._leaders.get(message.term)
            if leader != node.node_id:
                raise Violated(
                    "election safety",
                    f"node {node.node_id} speaks as leader of term {message.term}, which is"
                    f" {leader}'s",
                )

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        """State machine safety: equal entries in, equal states out."""
        for frame in frames:
            if frame.last_index >= len(self.committed):
                raise Violated(
                    "state machine safety", f"node {node.node_id} applied {frame!r}, not committed"
                )
            for index in range(frame.first_index, frame.last_index + 1):
                if self.committed[index] != frame.term:
                    raise Violated(
                        "state machine safety",
                        f"node {node.node_id} applied entry {index} of term {frame.term}; the"
                        f" committed one has term {self.committed[index]}",
                    )
        expected = self._states.setdefault(node.state_index, node.state)
        if expected != node.state:
            raise Violated(
                "state machine safety",
                f"node {node.node_id} has state {node.state:08x} at index {node.state_index},"
                f" another node {expected:08x}",
            )

    # -------------------------------------------------------------- what the clients see

    def on_proposed(
        self, node: SimulatedNode, token: int, proposed: Proposed, payloads: Sequence[bytes]
    ) -> None:
        """Remember what must come of a proposal."""
        self._open[token] = node.node_id, proposed, payloads

    def on_refused(self, payloads: Sequence[bytes]) -> None:
        """Remember what must never be committed."""
        self._refused.update(payloads)

    def on_finished(self, node: SimulatedNode, token: int, outcome: Outcome) -> None:
        """One end for each token; applied means durable on a majority, as proposed."""
        if token not in self._open:
            raise Violated("every proposal ends once", f"token {token} ended twice: {outcome}")
        _, proposed, payloads = self._open.pop(token)
        if not isinstance(outcome, Applied):
            return
        last = outcome.last_index
        if last >= len(self.committed) or self.committed[last] != proposed.term:
            raise Violated(
                "acknowledged is committed",
                f"token {token} of node {node.node_id}: entry {last} of term {proposed.term}"
                " is not what was committed",
            )
        self._check_durable(
            last,
            proposed.term,
            self._deciders[last],
            f"token {token} was acknowledged",
        )
        for offset, payload in enumerate(payloads):
            key = (proposed.first_index + offset, proposed.term)
            entry = self._entries.get(key)
            if entry is None or entry.payload != payload:
                raise Violated("acknowledged is committed", f"entry {key} is not what was proposed")

    def on_crash(self, node: SimulatedNode) -> None:
        """The tokens of a process end with it."""
        for token in [token for token, (owner, *_) in self._open.items() if owner == node.node_id]:
            del self._open[token]

    def on_wipe(self, node: SimulatedNode) -> None:
        """A node lost its disk: what was counted on it may be gone."""
        self._seen.pop(node.node_id, None)

    @property
    def open_changes(self) -> int:
        """How many changes of the membership have not ended."""
        return sum(not payloads for _, _, payloads in self._open.values())

    @property
    def open_tokens(self) -> int:
        """How many proposals have not ended."""
        return len(self._open)

    # -------------------------------------------------------------- after every event

    def after_event(self, node: SimulatedNode) -> None:
        """Everything about one node that must hold at any time."""
        core = node.core
        term, commit, applied = core.term, core.commit_index, core.applied_index
        last, last_term = core.last_id
        leads = core.role is RaftRole.LEADER
        seen = self._seen.get(node.node_id)
        known = 0
        if seen is not None and seen.life == node.life:
            known = seen.commit
            if term < seen.term or commit < seen.commit or applied < seen.applied:
                raise Violated(
                    "nothing goes back",
                    f"node {node.node_id}: term {seen.term} to {term}, commit {seen.commit} to"
                    f" {commit}, applied {seen.applied} to {applied}",
                )
            if (
                leads
                and seen.term == term
                and seen.leading_last
                and not _holds(core, seen.leading_last, seen.leading_last_term)
            ):
                raise Violated(
                    "leader append-only",
                    f"node {node.node_id} lost entry {seen.leading_last} of term"
                    f" {seen.leading_last_term} while it led term {term}",
                )
        elif term < node.disk.hard_state.term:
            raise Violated("nothing goes back", f"node {node.node_id} restarted in term {term}")
        if not applied <= commit <= last or (core.first_index > applied + 1 and not node.staged):
            raise Violated(
                "indexes are ordered",
                f"node {node.node_id}: first {core.first_index}, applied {applied}, commit"
                f" {commit}, last {last}",
            )
        if commit > known:
            self._check_commit(node, commit, leads=self._leaders.get(term) == node.node_id)
        if leads:
            self._check_progress(node)
        self._configurations.after_event(node)
        if len(node.held) > PROMISES_MAX:
            raise Violated("bounded memory", f"{len(node.held)} messages wait for a disk")
        self._seen[node.node_id] = Seen(
            node.life, term, commit, applied, last if leads else 0, last_term, core.membership
        )

    def at_the_end(self) -> None:
        """What can only be said when the run is over."""
        for index, term in enumerate(self.committed):
            entry = self._entries.get((index, term))
            if entry is not None and entry.payload in self._refused:
                raise Violated("refused is never committed", f"entry {index} of term {term}")

    # -------------------------------------------------------------- the checks

    def _register(self, frame: Frame, previous: int | None) -> None:
        index, term = frame.first_index, frame.term
        for payload in frame.payloads():
            entry = self._entries.get((index, term))
            if entry is None:
                if previous is not None:
                    self._entries[index, term] = Entry(previous, frame.kind, payload)
            elif (
                entry.payload != payload
                or entry.kind is not frame.kind
                or (previous is not None and entry.previous_term != previous)
            ):
                raise Violated("log matching", f"two entries {index} of term {term}")
            previous = term
            index += 1  # type: ignore[assignment]

    def _check_vote(self, node: SimulatedNode, term: Term, candidate: int) -> None:
        stored = node.disk.hard_state
        if stored.term < term or (stored.term == term and stored.voted_for != candidate):
            raise Violated(
                "vote durability",
                f"node {node.node_id} votes for {candidate} in term {term}; its disk has {stored}",
            )
        voter = (node.node_id, node.identity.incarnation, term)
        first = self._votes.setdefault(voter, candidate)
        if first != candidate:
            raise Violated(
                "one vote for each term",
                f"node {node.node_id} voted for {first} and {candidate} in term {term}",
            )

    def _check_ack(self, node: SimulatedNode, message: Message, ack: AppendAck) -> None:
        disk = node.disk
        leader = self._nodes[message.to]
        if (
            disk.hard_state.term > message.term
            or leader.down
            or leader.core.role is not RaftRole.LEADER
            or leader.core.term != message.term
        ):
            return  # nobody will count it
        expected = leader.core.term_at(ack.match)
        if expected is not None and not disk.has(ack.match, expected):
            raise Violated(
                "acknowledged is durable",
                f"node {node.node_id} acknowledges entry {ack.match} of term {expected}; its disk"
                f" ends at {disk.last_index}",
            )

    def _check_commit(self, node: SimulatedNode, commit: int, *, leads: bool) -> None:
        core, committed = node.core, self.committed
        if commit >= len(committed):
            if not leads:
                raise Violated(
                    "commit only by a leader",
                    f"node {node.node_id} commits {commit}, the leaders only {len(committed) - 1}",
                )
            term = core.term_at(core.commit_index)
            if term != core.term:
                raise Violated(
                    "commit only entries of the own term",
                    f"node {node.node_id} commits entry {commit} of term {term} in {core.term}",
                )
            membership = self._decider(node, commit, term)
            self._check_durable(commit, term, membership, f"node {node.node_id} committed it")
            frames = core.frames(len(committed), commit)  # type: ignore[arg-type]
            for frame in frames:
                committed.extend([frame.term] * frame.count)
                self._committed_in.extend([core.term] * frame.count)
                self._deciders.extend([membership] * frame.count)
        if not _holds(core, commit, committed[commit]):
            raise Violated(
                "state machine safety",
                f"node {node.node_id} holds entry {commit} of term"
                f" {core.term_at(core.commit_index)} for committed; it has term"
                f" {committed[commit]}",
            )

    def _decider(self, node: SimulatedNode, commit: int, term: Term) -> Membership | None:
        """Return the configuration that decided: one may have been appended in the same event."""
        membership, seen = node.core.membership, self._seen.get(node.node_id)
        before = seen.membership if seen is not None and seen.life == node.life else None
        if before is None or before == membership:
            return membership
        decided = is_quorum(before.halves, self._copies(commit, term, before))
        return before if decided else membership

    def _check_durable(
        self, index: int, term: Term, membership: Membership | None, why: str
    ) -> None:
        """Look at the disks."""
        if membership is None:
            return
        copies = self._copies(index, term, membership)
        if not is_quorum(membership.halves, copies):
            raise Violated(
                "committed is durable on a quorum",
                f"entry {index} of term {term} is on the disks {copies}, of {membership.halves}:"
                f" {why}",
            )

    def _copies(self, index: int, term: Term, membership: Membership) -> set[NodeId]:
        """Return whose disk has an entry. One that lost a part, or all, may have had it before."""
        copies = set[NodeId]()
        for voter in membership.electors:
            node, member = self._nodes[voter], membership.get(voter)
            lost = member is None or member.incarnation != node.identity.incarnation
            if lost or node.disk.suspect or node.disk.has(index, term):
                copies.add(voter)
        return copies

    def _check_progress(self, node: SimulatedNode) -> None:
        for peer, progress in node.core.progress.items():
            state = progress.state
            if isinstance(state, Replicate) and len(state.window) > self._max_inflight:
                raise Violated(
                    "bounded memory",
                    f"node {node.node_id} has {len(state.window)} messages on their way to {peer}",
                )
            if not progress.match < progress.next <= node.core.last_id.index + 1:
                raise Violated(
                    "match before next", f"node {node.node_id} to {peer}: {progress.match}"
                )


def _holds(core: RaftCore, index: int, term: int) -> bool:
    """Whether the log holds the entry, or a snapshot covers it."""
    own = core.term_at(index)  # type: ignore[arg-type]
    return own == term if own is not None else index < core.first_index
