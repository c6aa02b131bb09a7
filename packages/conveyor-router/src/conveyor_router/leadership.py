"""Runs the leader's duties while this node leads, and only then.

The one loop that connects Raft's leadership with everything a leader does: on winning, catch up
with what earlier leaders agreed on, then start the duties; on losing (or with a new term), cancel
them and forget what was heard. A duty that fails is logged and begins again with the others after
a pause: a leader without its duties would look alive and do nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from conveyor_grpc.errors import ControlError
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_raft.errors import RaftError
from conveyor_raft.status import LeadershipChanged

RESTART_PAUSE_S = 0.5

Duty = Callable[[], Coroutine[Any, Any, None]]
_log = logging.getLogger(__name__)


class Leadership:
    """Follows one node's role; `run` is its task."""

    def __init__(self, plane: ControlPlane, duties: Sequence[Duty]) -> None:
        self._plane = plane
        self._duties = tuple(duties)

    async def run(self) -> None:
        """Follow the node until it stops."""
        node = self._plane.node
        leading: asyncio.Task[None] | None = None
        term: int | None = None
        async with asyncio.TaskGroup() as group:
            async for event in node.watch():
                if not isinstance(event, LeadershipChanged):
                    continue
                now = node.term if node.is_leader else None
                if now != term:
                    await _end(leading)
                    term = now
                    leading = None if now is None else group.create_task(self._lead(now))
            await _end(leading)

    async def _lead(self, term: int) -> None:
        """Do the leader's duties in `term` until cancelled."""
        plane = self._plane
        try:
            while not plane.leading:
                try:
                    await plane.begin_leading()
                except RaftError as error:
                    _log.info("not leading yet in term %d: %s", term, error)
                    await asyncio.sleep(RESTART_PAUSE_S)
            _log.info("leading in term %d", term)
            while True:
                await self._do_duties()
                await asyncio.sleep(RESTART_PAUSE_S)
        finally:
            plane.end_leading()
            _log.info("no longer leading in term %d", term)

    async def _do_duties(self) -> None:
        """Run all duties until one of them ends."""
        try:
            async with asyncio.TaskGroup() as group:
                for duty in self._duties:
                    group.create_task(duty())
        except* (RaftError, ControlError) as errors:
            _log.warning("a duty was interrupted: %s", errors.exceptions[0])
        except* Exception:
            _log.exception("a duty failed; all duties begin again in %s s", RESTART_PAUSE_S)


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
