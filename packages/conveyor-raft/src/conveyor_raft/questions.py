"""Reads and transfers of leadership under way: the futures of those who wait for the core's word.

Rules kept: a future is answered from the core's output, or fails with an error that names the
caller's next move, or with the node; none is left behind, also not one that still lies in the
driver's inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import (
    NodeId,
    ReadOutcome,
    ReadReady,
    Refused,
    TransferOutcome,
    Transferred,
)
from conveyor_raft.errors import NoQuorum, RaftError, TransferFailed
from conveyor_raft.waiters import ResultFuture, fail


class Questions:
    """`explain` turns a refusal of the core into an error, `feed` queues an input of the core."""

    def __init__(
        self,
        core: RaftCore,
        feed: Callable[[Callable[[], object]], None],
        explain: Callable[[Refused], RaftError],
    ) -> None:
        self._core = core
        self._feed = feed
        self._explain = explain
        self._tokens = 0
        self._by_token: dict[int, ResultFuture] = {}
        self._open: set[ResultFuture] = set()

    def read(self, *, lease: bool) -> ResultFuture:
        """Return a future that is done when a read may run on this node's state."""
        future = self._new()
        self._feed(partial(self._ask_read, future, lease))
        return future

    def transfer(self, to: NodeId | None) -> ResultFuture:
        """Return a future of the leader to whom the office was handed over."""
        future = self._new()
        self._feed(partial(self._ask_transfer, future, to))
        return future

    def answer_reads(self, outcomes: Iterable[tuple[int, ReadOutcome]]) -> None:
        """Tell those whose reads have ended."""
        for token, outcome in outcomes:
            future = self._by_token.pop(token)
            if future.done():
                continue
            if isinstance(outcome, ReadReady):
                future.set_result(outcome.index)
            else:
                future.set_exception(NoQuorum(f"the read could not be confirmed: {outcome.reason}"))

    def answer_transfers(self, outcomes: Iterable[tuple[int, TransferOutcome]]) -> None:
        """Tell those whose transfers have ended."""
        for token, outcome in outcomes:
            future = self._by_token.pop(token)
            if future.done():
                continue
            if isinstance(outcome, Transferred):
                future.set_result(outcome.leader_id)
            else:
                future.set_exception(TransferFailed(outcome.reason))

    def fail_all(self, error: RaftError) -> None:
        """End everything."""
        fail(tuple(self._open), error)
        self._by_token.clear()

    def _new(self) -> ResultFuture:
        future: ResultFuture = asyncio.get_running_loop().create_future()
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _ask_read(self, future: ResultFuture, lease: bool) -> None:
        self._tokens += 1
        self._take_up(future, self._core.read(token=self._tokens, lease=lease))

    def _ask_transfer(self, future: ResultFuture, to: NodeId | None) -> None:
        self._tokens += 1
        self._take_up(future, self._core.transfer(to, token=self._tokens))

    def _take_up(self, future: ResultFuture, answer: Refused | NodeId | None) -> None:
        if isinstance(answer, Refused):
            fail([future], self._explain(answer))
        else:
            self._by_token[self._tokens] = future
