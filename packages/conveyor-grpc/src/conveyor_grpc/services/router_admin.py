"""`RouterAdmin`: what operators and the command line ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

from conveyor_grpc.errors import FellBehindError, NotReadyError
from conveyor_grpc.interceptors import Context
from conveyor_grpc.services import resources, status
from conveyor_grpc.services.apply import Applier
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.admin_pb2_grpc import RouterAdminServicer as _Servicer

BOOKMARK_INTERVAL_S = 5.0


class RouterAdminServicer(_Servicer):
    """Answers on the leader, save the status and events of a node, which any router answers."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._applier = Applier(plane)

    async def Apply(self, request: wire.ApplyRequest, context: Context) -> wire.ApplyResponse:  # noqa: N802
        """Apply documents, all or none."""
        return await self._applier.apply(request)

    async def Delete(self, request: wire.DeleteRequest, context: Context) -> wire.DeleteResponse:  # noqa: N802
        """Delete one document."""
        return await self._applier.delete(request)

    async def List(self, request: wire.ListRequest, context: Context) -> wire.ListResponse:  # noqa: N802
        """List the resources of a kind."""
        state = await self._plane.leader_state()
        listed = resources.listed(state, self._plane, request.kind, request.namespace)
        return wire.ListResponse(resources=listed, revision=state.revision)

    async def Get(self, request: wire.GetRequest, context: Context) -> wire.GetResponse:  # noqa: N802
        """Return one resource."""
        state = await self._plane.leader_state()
        resource = resources.found(
            state, self._plane, request.kind, request.namespace, request.name
        )
        return wire.GetResponse(resource=resource, revision=state.revision)

    async def ClusterStatus(  # noqa: N802
        self, request: wire.ClusterStatusRequest, context: Context
    ) -> wire.ClusterStatusResponse:
        """Return this router's own view of the cluster."""
        return status.cluster_status(self._plane, await self._plane.node.state())

    async def PipelineStatus(  # noqa: N802
        self, request: wire.PipelineStatusRequest, context: Context
    ) -> wire.PipelineStatusResponse:
        """Return phase, assignments, counters and positions of one pipeline."""
        state = await self._plane.leader_state()
        return status.pipeline_status(self._plane, state, request.namespace, request.name)

    async def WatchEvents(  # noqa: N802
        self, request: wire.WatchEventsRequest, context: Context
    ) -> AsyncIterator[wire.Event]:
        """Send what this router applies from now on."""
        level = self._plane.feed.revision
        seen = (await self._plane.node.state()).revision
        yield wire.Event(revision=seen, type=wire.EVENT_TYPE_BOOKMARK)
        while True:
            moved = await level.wait_above(seen, BOOKMARK_INTERVAL_S)
            if level.closed:
                raise NotReadyError("this router is stopping; watch another one")
            if moved:
                changes = (await self._plane.node.state()).changes_since(seen)
                if changes is None:
                    raise FellBehindError(
                        f"changes since revision {seen} are no longer kept; list, then watch again"
                    )
                for change in changes:
                    seen = change.revision
                    event = status.event_of(change)
                    if event is not None and status.concerns(event, request):
                        yield event
            else:
                yield wire.Event(revision=seen, type=wire.EVENT_TYPE_BOOKMARK)
