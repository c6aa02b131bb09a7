"""Every way in which conveyor-raft says no, named after the caller's next move.

What for: somebody who proposes a command must know one thing above all, whether the command may
still take effect. There are three outcomes and the tree follows them:

* a result: the command was committed and applied;
* `RejectedError`: the command surely had no effect and never will; trying again is safe
  (`retry_safe` is true), for `NotLeader` at the address that the error carries;
* `UnknownOutcome`: the command was appended, and whether it will be committed is not known here.
  Trying again may apply it twice (`retry_safe` is false), unless the command itself is idempotent.

`CommandRejected` is the state machine's own, deterministic refusal: committed, seen by every node,
and without effect on the state.

`StorageError` and `FormationError` concern the node rather than a command: they keep it from
starting, or stop it, and say what an operator can do.

This module is pure: the core may import it.
"""

# The names are sentences about the outcome, as in the specification, so they do not end in "Error".
# ruff: noqa: N818

from __future__ import annotations

from typing import ClassVar


class RaftError(Exception):
    """The root of everything that conveyor-raft raises on purpose."""

    retry_safe: ClassVar[bool] = False
    """Whether trying the same command again can never apply it twice."""


class RejectedError(RaftError):
    """The command surely had no effect: it was refused before it was appended."""

    retry_safe: ClassVar[bool] = True


class ChangeRefused(RejectedError):
    """A change of the membership does not take place, for the reason that it names."""


class InvalidChange(RejectedError):
    """A change of the membership that makes no sense for the membership as it is."""


class NotLeader(RejectedError):
    """This node does not lead; the error carries who does, as far as this node knows."""

    def __init__(
        self,
        leader_id: int | None = None,
        leader_raft_address: str | None = None,
        leader_client_address: str | None = None,
        term: int = 0,
    ) -> None:
        if leader_id is None:
            text = f"this node is not the leader and knows none in term {term}; try again soon"
        else:
            where = leader_client_address or leader_raft_address or "an unknown address"
            text = f"this node is not the leader of term {term}; node {leader_id} at {where} is"
        super().__init__(text)
        self.leader_id = leader_id
        self.leader_raft_address = leader_raft_address
        self.leader_client_address = leader_client_address
        self.term = term


class TransferInProgress(NotLeader):
    """The leader hands its office over; the error carries who is to take it. Try there, soon."""


class TransferFailed(RaftError):
    """Leadership was not handed over as wished; who leads now is what `leader_id` says."""

    retry_safe: ClassVar[bool] = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"leadership was not transferred: {reason}")
        self.reason = reason


class ReadError(RaftError):
    """A read could not be answered as consistently as it was asked for; nothing has happened."""

    retry_safe: ClassVar[bool] = True


class NoQuorum(ReadError):
    """No majority has confirmed the leader in time; try again, or read locally."""


class LeaseUnavailable(ReadError):
    """The leader holds no lease at the moment."""


class Busy(RejectedError):
    """Too much is on its way already; try again after a pause."""


class PayloadTooLarge(RejectedError):
    """The encoded command is larger than the node accepts; make it smaller."""

    retry_safe: ClassVar[bool] = False

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the encoded command has {size} bytes, the limit is {limit}"
            " (RaftConfig.max_payload_bytes); propose something smaller"
        )
        self.size = size
        self.limit = limit


class NotReady(RejectedError):
    """The node has not started, or its cluster is not formed yet; try again later."""


class ShuttingDown(RejectedError):
    """The node is stopping; try another node."""


class CommandRejected(RaftError):
    """The state machine refused the command: it is committed, and changed nothing, on every node.

    Raise it from `StateMachine.apply`, before anything was changed. `code` is for programs.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class SessionExpired(CommandRejected):
    """The session has ended, or never was; this command was not applied, and will not be.

    What was proposed in the session before and has no answer stays unknown for ever: it may have
    taken effect. Look at the state, then open a new session.
    """

    def __init__(self, session_id: int) -> None:
        super().__init__(
            "session_expired",
            f"session {session_id} has expired or was closed; nothing was applied. Commands of it"
            " that have no answer may have taken effect: look, then open a new session",
        )
        self.session_id = session_id


class UnknownOutcome(RaftError):
    """The command was appended and may or may not be committed; look before trying again."""

    def __init__(self, reason: str, index: int | None = None, term: int | None = None) -> None:
        where = "" if index is None else f" (index {index}, term {term})"
        super().__init__(f"the outcome is unknown{where}: {reason}")
        self.reason = reason
        self.index = index
        self.term = term


class UnknownInSession(UnknownOutcome):
    """The outcome is unknown, but the command has a number: propose it again under that number."""

    retry_safe: ClassVar[bool] = True

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(
            f"{reason} (number {number}: propose it again under this number, here or with the same"
            " session on the leader; it takes effect once)"
        )
        self.number = number


class InvariantViolation(RaftError):
    """A rule that the algorithm depends on is broken; this node stops before it does harm."""


class NodeStopped(RaftError):
    """The node has stopped by itself; the cause is chained, and `reason` says it in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the node has stopped: {reason}")
        self.reason = reason


class ListenError(RaftError):
    """The node cannot listen where it was told to."""


class FormationError(RaftError):
    """The cluster cannot be formed, or joined, with what this node was told."""


class StorageError(RaftError):
    """The node's own disk cannot be used, or no longer be trusted."""


class Locked(StorageError):
    """Another process uses the data directory."""


class WrongIdentity(StorageError):
    """The data directory belongs to another node or another cluster."""


class Corrupt(StorageError):
    """What is on disk is not what was written there, or less than was acknowledged."""


class Failed(StorageError):
    """The disk refused a write or a flush; after that nothing it says about the past is trusted."""
