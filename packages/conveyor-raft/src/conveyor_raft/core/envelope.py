"""Whether a message is meant for this node, in this life of it, and comes from whom it says.

Rules kept: a message of another cluster, for another node, or from another incarnation of a member
(one that lost its disk and with it its votes) is dropped and counted.
"""

from __future__ import annotations

from conveyor_raft.core.messages import Message
from conveyor_raft.core.replica import Replica


def is_for(replica: Replica, message: Message) -> bool:
    """Tell whether the node may step the message; count it if not."""
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
