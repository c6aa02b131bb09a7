"""What must hold of elections beyond "at most one leader for each term": nobody is disturbed.

Rules checked:

* no disruption: a node that has heard its leader within the shortest election timeout does not
  enter the term of a candidate whom the leader has not asked;
* asking changes nothing: a pre-vote leaves term, vote, role and patience of the asked node alone;
* nobody enters a term unasked: a campaign follows answers of a majority that would vote for it;
* only the leader's wish overrides loyalty, in the one term that follows its own;
* a suspect node neither votes nor campaigns: who may have lost what it promised promises nothing;
* loyalty: a node gives no more such answers than it got questions while it heard no leader.

Like all rules of the simulator they keep their own account and do not ask the cores who is right.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from conveyor_raft.core.messages import (
    AppendEntries,
    Heartbeat,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from conveyor_raft.core.types import RaftRole
from conveyor_raft.testing.configurations import is_quorum
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.violated import Violated


class Heard(NamedTuple):
    """When a node heard a leader last, by its own clock, in which of its lives."""

    life: int
    leader: int
    local_ms: int


class ElectionRules:
    """The account of the elections of one run."""

    def __init__(self) -> None:
        """Begin with nobody heard."""
        self._heard: dict[int, Heard] = {}
        self._willing: dict[tuple[int, int], set[int]] = {}
        self._called: set[tuple[int, int]] = set()
        self._may_answer: Counter[tuple[int, int, int, int]] = Counter()

    def before_step(self, node: SimulatedNode, message: Message, local_ms: int) -> Any:
        """Note what a message finds; the result is for `after_step`."""
        body = message.body
        core = node.core
        if isinstance(body, PreVote):
            if not self._is_loyal(node, message.sender, local_ms):
                self._may_answer[node.node_id, message.sender, body.term, body.round] += 1
            return core.term, core.voted_for, core.role, core.next_deadline
        if isinstance(body, RequestVote) and node.options.check_quorum and not body.forced:
            return core.term if self._is_loyal(node, message.sender, local_ms) else None
        return None

    def after_step(self, node: SimulatedNode, message: Message, local_ms: int, before: Any) -> None:
        """Check what a message has done."""
        body, core = message.body, node.core
        if isinstance(body, AppendEntries | Heartbeat | InstallSnapshot):
            if core.term == message.term and core.leader_id == message.sender:
                self._heard[node.node_id] = Heard(node.life, message.sender, local_ms)
        elif isinstance(body, PreVote):
            if (core.term, core.voted_for, core.role, core.next_deadline) != before:
                raise Violated(
                    "asking changes nothing", f"a pre-vote of {message.sender} moved {node.node_id}"
                )
        elif before is not None and core.term != before:
            raise Violated(
                "no disruption",
                f"candidate {message.sender} moved node {node.node_id} from term {before} to"
                f" {core.term} while it heard its leader",
            )

    def on_release(self, node: SimulatedNode, message: Message) -> None:
        """Check questions and answers when they leave."""
        body = message.body
        grants = isinstance(body, PreVoteReply | VoteReply) and body.granted
        if node.disk.suspect and (grants or isinstance(body, PreVote | RequestVote)):
            raise Violated(
                "a suspect node neither votes nor campaigns",
                f"node {node.node_id} tells node {message.to} {body} in term {message.term}",
            )
        if isinstance(body, PreVoteReply):
            if body.granted:
                self._on_willing(node, message, body)
        elif isinstance(body, TimeoutNow):
            self._called.add((message.to, message.term + 1))
        elif isinstance(body, RequestVote) and body.forced:
            if (node.node_id, message.term) not in self._called:
                raise Violated(
                    "only the leader's wish overrides loyalty",
                    f"node {node.node_id} campaigns in term {message.term} as if it was asked to",
                )
        elif isinstance(body, RequestVote) and node.options.pre_vote:
            willing = self._willing.get((node.node_id, message.term), set())
            core, membership = node.core, node.core.membership
            campaigns = core.role is RaftRole.CANDIDATE and core.term == message.term
            halves = () if membership is None else membership.halves
            if campaigns and not is_quorum(halves, willing | {node.node_id}):
                raise Violated(
                    "nobody enters a term unasked",
                    f"node {node.node_id} campaigns in term {message.term}; only {willing} would"
                    " vote for it",
                )

    def _on_willing(self, node: SimulatedNode, message: Message, reply: PreVoteReply) -> None:
        key = (node.node_id, message.to, reply.term, reply.round)
        self._may_answer[key] -= 1
        if self._may_answer[key] < 0:
            raise Violated(
                "loyalty",
                f"node {node.node_id} would elect {message.to} in term {reply.term}, but it heard"
                " its leader when it was asked",
            )
        self._willing.setdefault((message.to, reply.term), set()).add(node.node_id)

    def _is_loyal(self, node: SimulatedNode, candidate: int, local_ms: int) -> bool:
        heard = self._heard.get(node.node_id)
        return (
            heard is not None
            and heard.life == node.life
            and heard.leader != candidate
            and local_ms < heard.local_ms + node.options.election_timeout_min_ms
        )
