"""What must hold of reads and of transfers of leadership.

Rules checked:

* read safety: a read that may run sees everything that was acknowledged before it was asked;
* lease safety: while a node holds the lease, in true time, nobody else does and nobody leads a
  later term;
* every waiter is told: a read and a transfer end exactly once, unless their node's process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from conveyor_raft.core.types import RaftRole, ReadOutcome, ReadReady
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.violated import Violated


class Promises:
    """The account of reads and transfers of one run. `acknowledged`: the newest such index."""

    def __init__(
        self, nodes: Mapping[int, SimulatedNode], local: Callable[[SimulatedNode], int]
    ) -> None:
        """Begin with nobody waiting."""
        self._nodes = nodes
        self._local = local
        self.acknowledged = 0
        self._open: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def on_asked(self, node: SimulatedNode, token: int) -> None:
        """A read or a transfer begins at a node."""
        self._open[token] = node.node_id, self.acknowledged

    def on_read(self, node: SimulatedNode, token: int, outcome: ReadOutcome) -> None:
        """A read has ended."""
        _, acknowledged = self._end(token)
        if isinstance(outcome, ReadReady) and node.state_index < acknowledged:
            raise Violated(
                "read safety",
                f"read {token} runs on node {node.node_id} at index {node.state_index}; entry"
                f" {acknowledged} was acknowledged before it was asked",
            )

    def on_transfer(self, token: int) -> None:
        """A transfer has ended."""
        self._end(token)

    def on_crash(self, node: SimulatedNode) -> None:
        """The tokens of a process end with it."""
        self._open = {
            token: asked for token, asked in self._open.items() if asked[0] != node.node_id
        }

    def check_leases(self) -> None:
        """Look at all nodes as they are at this moment."""
        running = [node for node in self._nodes.values() if not node.down]
        holders = [node for node in running if node.core.has_lease(self._local(node))]
        for holder in holders:
            for node in running:
                leads = node.core.role is RaftRole.LEADER and node.core.term > holder.core.term
                if node is not holder and (leads or node in holders):
                    raise Violated(
                        "lease safety",
                        f"node {holder.node_id} holds the lease of term {holder.core.term} while"
                        f" node {node.node_id} leads term {node.core.term}",
                    )

    def _end(self, token: int) -> tuple[int, int]:
        if token not in self._open:
            raise Violated("every waiter is told", f"token {token} ended, but was not open")
        return self._open.pop(token)
