"""A client's side of a session: numbers, answers, and trying again until there is one.

What for: `async with node.session() as session` makes `propose` safe to try again. Every command
gets a number; however often it is proposed under that number, on whichever node leads, it takes
effect once (`machines.sessions` sees to that).

Rules kept: an attempt that surely had no effect never hides an earlier one whose outcome is
unknown; a number is acknowledged when its answer is known to the caller, or when nobody can ask for
it any more; the number of unanswered commands is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, NamedTuple, TypeVar

from conveyor_raft.errors import (
    Busy,
    CommandRejected,
    NotLeader,
    NotReady,
    RaftError,
    RejectedError,
    UnknownInSession,
    UnknownOutcome,
)
from conveyor_raft.machines.sessions import (
    UNANSWERED_MAX,
    CloseSession,
    InSession,
    KeepSession,
    OpenSession,
)

C = TypeVar("C")
R = TypeVar("R")

_PAUSE_SECONDS = 0.02

Propose = Callable[[Any, float], Awaitable[Any]]
"""Proposes a command on a node and waits at most so many seconds."""


class SessionToken(NamedTuple):
    """What is needed to go on with a session elsewhere, or in another process."""

    session_id: int
    next_number: int
    answered_through: int


class ClientSession(Generic[C, R]):
    """An open session. `RaftNode.session` makes one."""

    def __init__(self, propose: Propose, token: SessionToken, timeout: float) -> None:
        self._propose = propose
        self._session_id = token.session_id
        self._next_number = token.next_number
        self._answered_through = token.answered_through
        self._answered: set[int] = set()
        self._timeout = timeout
        self._detached = False

    @property
    def session_id(self) -> int:
        """The session, as the cluster knows it."""
        return self._session_id

    @property
    def detached(self) -> bool:
        """Whether somebody else goes on with it."""
        return self._detached

    def number(self) -> int:
        """Take the next number, for a command that is to be proposed under it."""
        number = self._next_number
        if number - self._answered_through > UNANSWERED_MAX:
            raise Busy(
                f"{UNANSWERED_MAX} commands of this session have no answer; propose them again"
                " under their numbers, or give_up those that nobody needs"
            )
        self._next_number += 1
        return number

    def give_up(self, number: int) -> None:
        """Promise that the number will not be proposed again; its result may be forgotten."""
        self._answered.add(number)
        while self._answered_through + 1 in self._answered:
            self._answered_through += 1
            self._answered.remove(self._answered_through)

    def detach(self) -> SessionToken:
        """Leave the session open for `RaftNode.session(resume=...)`; use this object no more.

        A number that was taken and has no answer yet stays valid there.
        """
        self._detached = True
        return SessionToken(self._session_id, self._next_number, self._answered_through)

    async def keep_alive(self) -> None:
        """Begin the session's time anew, without a command.

        Raises:
            SessionExpired: it is too late.
        """
        await self._propose(KeepSession(self._session_id), self._timeout)

    async def propose(
        self, command: C, *, number: int | None = None, timeout: float | None = None
    ) -> R:
        """Have the command take effect once, and return its result; try again until `timeout`.

        Without a `number` the command gets a new one. Give the number of an earlier attempt (it is
        in `UnknownInSession`, or came from `number()`) to ask for the same command again.

        Raises:
            UnknownInSession: no answer in time, or another node leads; safe to try again.
            RejectedError: the command surely had no effect.
            SessionExpired: this attempt had no effect; what was unknown stays unknown.
            CommandRejected: the state machine refused it.
        """
        fresh = number is None
        if number is None:
            number = self.number()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._timeout if timeout is None else timeout)
        unknown: UnknownOutcome | None = None
        while True:
            request = InSession(self._session_id, number, self._answered_through, command)
            try:
                result: R = await self._propose(request, max(0.0, deadline - loop.time()))
            except CommandRejected as refusal:
                if refusal.code not in {"session_expired", "session_full"}:
                    self.give_up(number)
                raise
            except UnknownOutcome as error:
                unknown = error
                if loop.time() + _PAUSE_SECONDS > deadline:
                    raise UnknownInSession(number, error.reason) from error
            except RejectedError as error:
                if not _may_pass(error) or loop.time() + _PAUSE_SECONDS > deadline:
                    if unknown is not None:
                        raise UnknownInSession(number, f"{unknown.reason}; {error}") from error
                    if fresh:  # It had no effect, and nobody else has its number.
                        self.give_up(number)
                    raise
            else:
                self.give_up(number)
                return result
            await asyncio.sleep(_PAUSE_SECONDS)


def _may_pass(error: RejectedError) -> bool:
    """Whether the same node may accept the same command a little later."""
    return isinstance(error, Busy | NotReady) or (
        isinstance(error, NotLeader) and error.leader_id is None
    )


@asynccontextmanager
async def client_session(
    propose: Propose, ttl: float, resume: SessionToken | None, timeout: float
) -> AsyncIterator[ClientSession[Any, Any]]:
    """Open a session, or go on with one; close it in the end, unless it was detached."""
    if resume is None:
        resume = SessionToken(await propose(OpenSession(int(ttl * 1000)), timeout), 1, 0)
    session: ClientSession[Any, Any] = ClientSession(propose, resume, timeout)
    try:
        yield session
    finally:
        if not session.detached:
            with suppress(RaftError):  # What is not closed expires.
                await propose(CloseSession(session.session_id), timeout)
