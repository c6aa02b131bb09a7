"""What operators and the command line ask of the routers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from conveyor_grpc.channel import TIMEOUT_S, LeaderChannel
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.admin_pb2_grpc import RouterAdminStub

WATCH_SILENCE_S = 15.0


class RouterAdminClient:
    """Calls `RouterAdmin`: the leader, save `cluster_status`, which any router answers for
    itself.
    """

    def __init__(self, channel: LeaderChannel, *, timeout_s: float = TIMEOUT_S) -> None:
        """Use `channel`, which stays the caller's to close; `timeout_s` bounds each unary call."""
        self._channel = channel
        self._timeout_s = timeout_s

    async def apply(
        self, documents: Sequence[bytes], *, dry_run: bool = False, expected_revision: int = 0
    ) -> wire.ApplyResponse:
        """Apply documents, all or none.

        Args:
            documents: canonical JSON, one document each, of any kinds, in any order.
            dry_run: tell what would happen, change nothing.
            expected_revision: refuse if anything was applied since this revision; 0 takes any.

        Returns:
            One entry per document. Refused documents are entries with problems, not exceptions.

        Raises:
            ConflictError: the revision is no longer the expected one.
        """
        return await self._channel.call(
            lambda channel: RouterAdminStub(channel).Apply,
            wire.ApplyRequest(
                documents=documents, dry_run=dry_run, expected_revision=expected_revision
            ),
            timeout_s=self._timeout_s,
            repeatable=expected_revision == 0,
        )

    async def delete(
        self, kind: str, name: str, *, namespace: str = "", dry_run: bool = False
    ) -> wire.DeleteResponse:
        """Delete a pipeline or a service document.

        A pipeline that runs drains first and is gone when its last stage has stopped; until then
        it is listed as draining.
        """
        return await self._channel.call(
            lambda channel: RouterAdminStub(channel).Delete,
            wire.DeleteRequest(kind=kind, namespace=namespace, name=name, dry_run=dry_run),
            timeout_s=self._timeout_s,
            repeatable=False,
        )

    async def list(self, kind: str, *, namespace: str = "") -> wire.ListResponse:
        """List what there is of a kind: Pipeline, Source, Transform, Sink, Lookup,
        Service, Sidecar, Group.
        """
        return await self._channel.call(
            lambda channel: RouterAdminStub(channel).List,
            wire.ListRequest(kind=kind, namespace=namespace),
            timeout_s=self._timeout_s,
            repeatable=True,
        )

    async def get(self, kind: str, name: str, *, namespace: str = "") -> wire.Resource:
        """Return one resource.

        Raises:
            NotFoundError: there is none; the message names the nearest.
        """
        response = await self._channel.call(
            lambda channel: RouterAdminStub(channel).Get,
            wire.GetRequest(kind=kind, namespace=namespace, name=name),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.resource

    async def cluster_status(self, *, endpoint: str | None = None) -> wire.ClusterStatusResponse:
        """Return the view that one router has of the cluster: of `endpoint`, else of the
        first to answer.
        """
        response = await self._channel.call_any(
            lambda channel: RouterAdminStub(channel).ClusterStatus,
            wire.ClusterStatusRequest(),
            endpoint=endpoint,
            timeout_s=self._timeout_s,
        )
        self._channel.learn(member.client_address for member in response.members)
        return response

    async def pipeline_status(
        self, name: str, *, namespace: str = ""
    ) -> wire.PipelineStatusResponse:
        """Return phase, assignments, counters per stage and positions of a pipeline."""
        return await self._channel.call(
            lambda channel: RouterAdminStub(channel).PipelineStatus,
            wire.PipelineStatusRequest(namespace=namespace, name=name),
            timeout_s=self._timeout_s,
            repeatable=True,
        )

    async def watch_events(
        self, *, kind: str = "", namespace: str = "", name: str = ""
    ) -> AsyncGenerator[wire.Event, None]:
        """Yield what changes from now on, and bookmarks between; any router serves it.

        Ends with an exception when the stream breaks (`FellBehindError`: read again, then watch
        again).
        """
        stream = self._channel.stream_any(
            lambda channel: RouterAdminStub(channel).WatchEvents,
            wire.WatchEventsRequest(kind=kind, namespace=namespace, name=name),
            silence_s=WATCH_SILENCE_S,
        )
        async with aclosing(stream):
            async for event in stream:
                yield event
