"""Channels to services and peers, one per endpoint, kept as long as somebody uses them.

A channel is a connection that mends itself; opening one per call costs a handshake and loses the
flow-control state, so both routers take theirs from here. An endpoint's channel is opened at its
first use, shared, and closed when the routing table no longer names the endpoint (``retain``) or
the pool closes. This is the one place where channel options and, where certificates are
configured, the credentials of outgoing connections are decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grpc
import grpc.aio

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
WINDOW_BYTES = 8 * 1024 * 1024
"""Wider than any credit, so that credit decides and HTTP/2 does not."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class ClientPool:
    """One channel per endpoint. Not thread-safe; belongs to the event loop that made it."""

    def __init__(
        self,
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        keepalive_ms: int | None = 30_000,
        credentials: grpc.ChannelCredentials | None = None,
        channels_max: int = 1_024,
    ) -> None:
        self._options: Sequence[tuple[str, int]] = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", message_bytes_max),
            *([("grpc.keepalive_time_ms", keepalive_ms)] if keepalive_ms else []),
        )
        self._credentials = credentials
        self._channels_max = channels_max
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, endpoint: str) -> grpc.aio.Channel:
        """The endpoint's channel, opened now if it is the first time.

        Raises:
            RuntimeError: the pool is at its bound; the table names more endpoints than is sane.
        """
        channel = self._channels.get(endpoint)
        if channel is None:
            if len(self._channels) >= self._channels_max:
                raise RuntimeError(f"more than {self._channels_max} endpoints are in use at once")
            channel = self._channels[endpoint] = self._open(endpoint)
        return channel

    async def retain(self, endpoints: Iterable[str]) -> None:
        """Close every channel whose endpoint is not among these."""
        wanted = set(endpoints)
        for endpoint in [name for name in self._channels if name not in wanted]:
            await self.discard(endpoint)

    async def discard(self, endpoint: str) -> None:
        """Close the endpoint's channel, if it is open; calls on it end as cancelled."""
        channel = self._channels.pop(endpoint, None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Close all of them."""
        await self.retain(())

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Endpoints with an open channel."""
        return tuple(self._channels)

    def _open(self, endpoint: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(endpoint, options=self._options)
        return grpc.aio.secure_channel(endpoint, self._credentials, options=self._options)
