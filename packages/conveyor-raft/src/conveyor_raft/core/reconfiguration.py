"""A leader's part in changes of the membership: one at a time, step by step (Raft §6).

Rules kept:

* Nothing is changed before an entry of the leader's own term is committed, nor while the
  configuration in force is not: otherwise two leaders could work with configurations whose
  majorities do not meet (the bug of the single-server change, raft-dev, 2015).
* A learner is promoted when it was brought up to the end of the log in rounds, the last one shorter
  than an election takes; after ten rounds, or a long silence, the wish is withdrawn, so that a dead
  or slow node never becomes a voter on whom commits depend (Ongaro 2014, §4.2.1).
* A joint configuration is left as soon as it is committed, by whoever leads then.
* Who was removed is told so: replication to it goes on until it has its removal, or for a while.
"""

from __future__ import annotations

from collections.abc import Mapping

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.progress import Progress
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import (
    LogId,
    LogIndex,
    NodeId,
    Outcome,
    Proposed,
    RefusedReason,
    Term,
    Unknown,
    Withdrawn,
)
from conveyor_raft.errors import InvariantViolation


class CatchUp:
    """The rounds of one learner; in each it is sent what the log held when the round began."""

    __slots__ = ("_answers", "_match", "_moved_ms", "_round", "_started_ms", "_target")

    def __init__(self, replica: Replica, progress: Progress) -> None:
        """Begin the first round."""
        self._round = 0
        self._match = progress.match
        self._moved_ms = replica.now_ms
        self._begin(replica, progress)

    def check(self, replica: Replica, progress: Progress) -> bool | None:
        """Tell whether the learner has caught up (True), has not made it (False), or neither."""
        now, options = replica.now_ms, replica.options
        if progress.match > self._match:
            self._match, self._moved_ms = progress.match, now
        if progress.match >= self._target and progress.answers > self._answers:
            if now - self._started_ms < options.election_timeout_min_ms:
                return True
            if self._round >= options.catch_up_rounds_max:
                return False
            self._begin(replica, progress)
        return False if now - self._moved_ms >= options.catch_up_silence_ms else None

    def _begin(self, replica: Replica, progress: Progress) -> None:
        self._round += 1
        self._target = replica.log.last_index
        self._answers = progress.answers
        self._started_ms = replica.now_ms


class Reconfiguration:
    """What one leader does about the membership. `proposed` and `withdrawn` are for the core."""

    __slots__ = ("_change", "_final", "_rounds", "_token", "proposed", "withdrawn")

    def __init__(self) -> None:
        """Begin with no wish."""
        self._change: MembershipChange | None = None
        self._token = 0
        self._rounds: dict[NodeId, CatchUp] | None = None
        self._final = False  # the wish itself is in the log, and not only its preparation
        self.proposed: list[tuple[int, Proposed]] = []
        self.withdrawn: list[tuple[int, Outcome]] = []

    def refusal(
        self, replica: Replica, change: MembershipChange, first: LogIndex
    ) -> RefusedReason | None:
        """Tell why a change cannot begin now; `first` is the entry that began the term.

        Raises:
            InvalidChange: it could never begin.
        """
        membership = active_membership(replica)
        if replica.commit_index < first:
            return RefusedReason.NOT_READY
        if (
            self._change is not None
            or membership.joint
            or replica.configurations.active_since > replica.commit_index
        ):
            return RefusedReason.CHANGE_IN_PROGRESS
        if change.expected is not None and change.expected != membership.version:
            return RefusedReason.CONFIGURATION_MOVED
        change.check(membership)
        return None

    def begin(self, change: MembershipChange, token: int) -> None:
        """Take up a change that `refusal` has nothing against."""
        self._change, self._token = change, token
        self._rounds, self._final = None, False

    def next(
        self, replica: Replica, progress: Mapping[NodeId, Progress], first: LogIndex
    ) -> Membership | None:
        """Return the configuration that is to be appended now, if any."""
        change = self._change
        membership = active_membership(replica)
        if change is None and not membership.joint:
            return None
        commit = replica.commit_index
        if commit < first or replica.configurations.active_since > commit:
            return None
        version = LogId(LogIndex(replica.log.last_index + 1), replica.term)
        if membership.joint:
            if self._final:
                self._end(version.index, version.term)
            return membership.settled(version)
        assert change is not None
        staged = change.staged(membership, version)
        if staged is not None:
            return staged
        if not self._caught_up(replica, change, progress):
            return None
        final = change.final(membership, version)
        self._final = True
        if not final.joint:
            self._end(version.index, version.term)
        return final

    def give_up(self, replica: Replica, reason: str) -> None:
        """The leader loses its office: what becomes of the change is not up to it any more."""
        if self._change is None:
            return
        self._change = None
        if self._final:
            at = replica.configurations.active_since
            self.withdrawn.append((self._token, Unknown(at, at, replica.term, reason)))
        else:
            self.withdrawn.append((self._token, Withdrawn(reason)))

    def _caught_up(
        self, replica: Replica, change: MembershipChange, progress: Mapping[NodeId, Progress]
    ) -> bool:
        if self._rounds is None:
            self._rounds = {
                node_id: CatchUp(replica, progress[node_id]) for node_id in change.promote
            }
        for node_id, rounds in list(self._rounds.items()):
            verdict = rounds.check(replica, progress[node_id])
            if verdict is False:
                replica.counters["catch_ups_failed"] += 1
                self._change = None
                reason = f"node {node_id} does not catch up; it stays a learner"
                self.withdrawn.append((self._token, Withdrawn(reason)))
                return False
            if verdict is None:
                return False
        return True

    def _end(self, index: LogIndex, term: Term) -> None:
        """The last entry of the change is being appended; its token ends with the entry."""
        self.proposed.append((self._token, Proposed(index, index, term)))
        self._change = None
        self._final = False


def active_membership(replica: Replica) -> Membership:
    """Return the configuration in force on a node that has one."""
    membership = replica.membership
    if membership is None:
        raise InvariantViolation("a node without configuration leads")
    return membership
