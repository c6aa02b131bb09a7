"""A node that takes entries from a leader (Raft §5.3, §7).

Rules kept:

* An acknowledgement says exactly how far this log was proved equal to the leader's, never how long
  it is, and leaves when that much is durable.
* The commit index follows the leader's, but never beyond what was proved.
* Entries are cut off only where a leader's entry stands in another term, never because a message
  was short: an old, delayed message changes nothing.
* What is committed here equals every later leader's log, so a message that reaches back into it
  needs no check and is answered with the commit index.
"""

from __future__ import annotations

from itertools import pairwise

from conveyor_raft.core.messages import (
    AppendConflict,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
)
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import LogIndex, NodeId, RaftRole, Term
from conveyor_raft.errors import InvariantViolation


class Follower:
    """Whom this node follows, and when it will lose patience.

    `rearmed`: the timer was late once, because the process stood still, and was given another turn.
    """

    __slots__ = ("_proved", "deadline_ms", "leader_id", "rearmed")

    role = RaftRole.FOLLOWER

    def __init__(self, leader_id: NodeId | None, deadline_ms: int | None) -> None:
        """Follow a leader, or wait for one."""
        self.leader_id = leader_id
        self.deadline_ms = deadline_ms
        self.rearmed = False
        self._proved = LogIndex(0)

    def heard(self, replica: Replica) -> None:
        """The leader is alive, or a candidate got this node's vote: wait anew."""
        self.deadline_ms = replica.patience()
        self.rearmed = False

    def on_deadline(self, replica: Replica) -> bool:
        """Tell whether to campaign.

        A timer that is noticed much too late shows that this process stood still, not that the
        leader did: what piled up in the meantime is heard before the second, final alarm. A node
        that is busy looks again soon.
        """
        if self.deadline_ms is None or not replica.may_campaign:
            self.deadline_ms = None
            return False
        late_ms = replica.now_ms - self.deadline_ms
        if not self.rearmed and late_ms > replica.options.election_timeout_min_ms // 2:
            self.deadline_ms = replica.patience()
            self.rearmed = True
            replica.counters["pauses"] += 1
            return False
        if replica.is_busy:
            self.deadline_ms = replica.now_ms + replica.options.heartbeat_interval_ms
            replica.counters["campaigns_withheld"] += 1
            return False
        return True

    def on_append(self, replica: Replica, message: Message, append: AppendEntries) -> None:
        """Take entries, after checking that they continue what this log has."""
        if not _well_formed(append, message.term):
            replica.counters["malformed"] += 1
            return
        prev_index, prev_term = append.prev
        proved = append.frames[-1].last_index if append.frames else prev_index
        if prev_index < replica.commit_index:
            if proved <= replica.commit_index:
                replica.acknowledge(message.sender, append.session, replica.commit_index)
                return
        elif replica.log.term_at(prev_index) != prev_term:
            self._refuse(replica, message.sender, append)
            return
        self._take(replica, append)
        self._proved = max(self._proved, proved)
        commit = min(append.commit, proved)
        if commit > replica.commit_index:
            replica.commit_to(commit)
        replica.acknowledge(message.sender, append.session, proved)

    def on_heartbeat(self, replica: Replica, message: Message, heartbeat: Heartbeat) -> None:
        """Learn the commit index, and answer.

        The leader may still believe that a suspect node has what it has lost, so that one believes
        only what was proved to it in this life.
        """
        commit = heartbeat.commit
        if replica.is_suspect:
            commit = min(commit, self._proved)
        if commit > replica.commit_index:
            replica.commit_to(commit)
        replica.reveal_term(message.sender, HeartbeatReply(heartbeat.session, heartbeat.beat))

    def on_install(self, replica: Replica, message: Message, install: InstallSnapshot) -> None:
        """Accept a snapshot that is ahead of this log.

        One whose last entry this log holds brings nothing but the news that it is committed; one
        whose last entry stands here in another term, or not at all, replaces the whole log.
        """
        meta = install.meta
        if meta.index > replica.commit_index:
            if replica.log.contains(meta.last_id):
                replica.commit_to(meta.index)
            else:
                replica.install(meta)
        replica.acknowledge(message.sender, install.session, replica.commit_index)

    @staticmethod
    def _take(replica: Replica, append: AppendEntries) -> None:
        for frame in append.frames:
            log = replica.log
            if frame.first_index == log.last_index + 1:
                replica.append(frame)
                continue
            if frame.last_index <= replica.commit_index:
                continue
            first = max(frame.first_index, LogIndex(replica.commit_index + 1))
            rest = frame.slice(first, frame.last_index)
            missing = log.first_missing(rest)
            if missing > frame.last_index:
                continue
            if missing <= log.last_index:
                replica.truncate_from(missing)
            replica.append(rest.slice(missing, frame.last_index))

    @staticmethod
    def _refuse(replica: Replica, leader: NodeId, append: AppendEntries) -> None:
        log = replica.log
        index = append.prev.index
        conflict_term = log.term_at(index)
        if index == replica.commit_index:
            raise InvariantViolation(
                f"a leader of term {replica.term} has term {append.prev.term} at index {index},"
                f" where term {conflict_term} is committed"
            )
        if conflict_term is None:
            conflict_term, conflict_index = Term(0), LogIndex(log.last_index + 1)
        else:
            first = log.first_of_term_at(index)
            conflict_index = max(first, LogIndex(replica.commit_index + 1))
        replica.counters["conflicts"] += 1
        conflict = AppendConflict(append.session, index, conflict_term, conflict_index)
        replica.reveal_term(leader, conflict)


def _well_formed(append: AppendEntries, leader_term: Term) -> bool:
    """Whether the frames follow `prev` and one another, in terms that never decrease."""
    if not append.frames:
        return True
    first = append.frames[0]
    return (
        first.first_index == append.prev.index + 1
        and first.term >= append.prev.term
        and append.frames[-1].term <= leader_term
        and all(
            frame.first_index == before.last_index + 1 and frame.term >= before.term
            for before, frame in pairwise(append.frames)
        )
    )
