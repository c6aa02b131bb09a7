"""The sidecar's own gRPC server: lanes from other sidecars, health, reflection.

``DataPlane.Lanes`` is served by a raw handler: messages arrive and leave as the bytes that the wire
carries, and ``lane_codec`` alone decides what is opened. One stream is one link, named here with a
prefix that the engine never uses. The engine learns of a link by its first bundle, a hello.

Rules kept here:

* The address is bound alone (``so_reuseport`` off): a second sidecar on the port is an error, not a
  lottery.
* HTTP/2's windows are wider than any credit, so that credit decides.
* Streams are bounded; one more is refused as busy before anything is read from it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

import grpc
import grpc.aio

from conveyor_grpc.errors import ListenError
from conveyor_grpc.server import Server, ServerOptions
from conveyor_sidecar.core.events import LinkDown
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.errors import BindError, ProtocolError
from conveyor_sidecar.routing.client_pool import MESSAGE_BYTES_MAX, WINDOW_BYTES
from conveyor_sidecar.routing.lane_stream import LANES_SERVICE, LaneStream, Post

logger = logging.getLogger(__name__)

_LINK_PREFIX = "from-peer-"


class DataPlaneOptions(ServerOptions):
    """A Conveyor server's options, and HTTP/2 windows wider than any credit."""

    def arguments(self) -> list[tuple[str, int]]:
        """Return the channel arguments of grpc."""
        return [
            *ServerOptions.arguments(self),
            ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ]


class DataPlane:
    """Accepts lane streams and sends on them."""

    def __init__(
        self,
        post: Post,
        listen_address: str,
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        streams_max: int = 1_024,
        keepalive_interval_s: int = 30,
    ) -> None:
        self._post = post
        self._streams_max = streams_max
        self._accepting = False
        self._streams: dict[str, LaneStream] = {}
        self._numbers = itertools.count(1)
        self._server = Server(
            listen_address,
            DataPlaneOptions(
                message_bytes_max=message_bytes_max, keepalive_interval_s=keepalive_interval_s
            ),
        )
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self._lanes
        )
        self._server.open().add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(LANES_SERVICE, {"Lanes": handler}),)
        )
        self._server.offers([LANES_SERVICE])

    async def start(self) -> int:
        """Bind and serve; returns the port (the given one, unless it was 0).

        Raises:
            BindError: the address is taken or not ours.
        """
        try:
            await self._server.start()
        except ListenError as error:
            raise BindError(f"the data plane cannot start: {error}; set GRPC_PORT") from error
        return int(self._server.address.rpartition(":")[2])

    def open(self) -> None:
        """From now on lanes are accepted: there is somebody to take them."""
        self._accepting = True

    async def set_serving(self, serving: bool) -> None:
        """What health checks answer for the data plane: whether it has a table."""
        await self._server.set_ready(serving)

    def send(self, link: str, message: LaneMessage) -> bool:
        """Queue a bundle; False if the link is not (or no longer) one that was accepted here."""
        stream = self._streams.get(link)
        if stream is not None:
            stream.send(message)
        return stream is not None

    def close_link(self, link: str) -> bool:
        """Let an accepted link go without an event."""
        stream = self._streams.pop(link, None)
        if stream is not None:
            stream.finish()
        return stream is not None

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, end the streams, and stop."""
        for stream in self._streams.values():
            stream.finish()
        await self._server.stop(grace_s)

    @property
    def links(self) -> int:
        """Links that are open."""
        return len(self._streams)

    async def _lanes(
        self, requests: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        if not self._accepting:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "this sidecar is not registered yet; try again"
            )
        if len(self._streams) >= self._streams_max:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"this sidecar has {self._streams_max} lane streams, which is its limit",
            )
        link = f"{_LINK_PREFIX}{next(self._numbers)}"
        stream = self._streams[link] = LaneStream(link)
        reason = "the stream was cancelled"
        try:
            reason = await stream.carry(context.read, context.write, self._post)
        except ProtocolError as error:
            reason = str(error)
            logger.warning("a lane stream from %s is refused: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason[:1024])
        except (asyncio.InvalidStateError, grpc.aio.UsageError, grpc.RpcError) as error:
            reason = f"the stream broke: {error}"
        finally:
            # A link that the engine has closed is gone from the table and says nothing.
            if self._streams.pop(link, None) is not None:
                self._post(LinkDown(link, gone=False, reason=reason))
