"""A channel to the router cluster that finds the leader by itself.

Any list of router addresses is a good start. Each call goes to the router last known to lead; a
not-leader answer names the leader's address, which is followed for at most `HOPS_MAX` hops in a
row before the channel pauses (an election is on) and starts over with all the routers it knows.
Members named by answers are remembered, so one reachable address is enough even after all of the
given ones are gone.

What is repeated: always what was *surely not done* (nothing was sent, or the router said so), and
what is declared `repeatable` also after an unknown outcome. Everything ends with the call's
deadline.

Whether a request left this machine is known because a channel is brought to READY before the call
is made: a refused connection fails there, before anything is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc

from conveyor_grpc.errors import (
    BusyError,
    ControlError,
    DeadlineError,
    NotLeaderError,
    NotReadyError,
    UnknownOutcomeError,
    UnreachableError,
    from_rpc_error,
)
from conveyor_grpc.interceptors import trace_client_interceptors

Request = TypeVar("Request")
Response = TypeVar("Response")
UnaryMethod = Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]
StreamMethod = Callable[[grpc.aio.Channel], grpc.aio.UnaryStreamMultiCallable[Request, Response]]

TIMEOUT_S = 5.0
"""Default deadline of a unary call, retries included."""

HOPS_MAX = 3
CONNECT_TIMEOUT_S = 2.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 0.5
LEARNED_MAX = 32
"""Bound on remembered addresses; a cluster has three to seven routers."""


def split_endpoints(text: str) -> list[str]:
    """Split a comma list such as `CLUSTER_ENDPOINT` holds; blanks and repetitions are dropped.

    Raises:
        ValueError: for an entry that is not `host:port`, or an empty list.
    """
    endpoints = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for endpoint in endpoints:
        host, colon, port = endpoint.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{endpoint!r} is not an address of the form host:port")
    if not endpoints:
        raise ValueError("no router address given; expected host:port[,host:port...]")
    return endpoints


class LeaderChannel:
    """Calls the leading router of one cluster. Safe to share within one event loop; close it
    at the end.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        message_bytes_max: int = 16 * 1024 * 1024,
        keepalive_interval_s: int = 30,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Prepare a channel; nothing is connected until the first call.

        Args:
            endpoints: client addresses `host:port` of any routers.
            message_bytes_max: largest message in either direction.
            keepalive_interval_s: pause between keepalive pings on an idle connection.
            credentials: TLS; None speaks plaintext.
        """
        if not endpoints:
            raise ValueError("a LeaderChannel needs at least one router address")
        self._given = tuple(dict.fromkeys(endpoints))
        self._learned: dict[str, None] = {}
        self._leader: str | None = None
        self._next = 0
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._credentials = credentials
        self._options: list[tuple[str, int]] = [
            ("grpc.max_send_message_length", message_bytes_max),
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.keepalive_time_ms", keepalive_interval_s * 1000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections; calls under way fail."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All router addresses known: the given ones, then the learned ones."""
        return self._given + tuple(
            address for address in self._learned if address not in self._given
        )

    @property
    def leader(self) -> str | None:
        """Address of the router last known to lead."""
        return self._leader

    def learn(self, addresses: Iterable[str]) -> None:
        """Remember router addresses that an answer named; the oldest ones make room."""
        for address in addresses:
            if address:
                self._learned.pop(address, None)
                self._learned[address] = None
        while len(self._learned) > LEARNED_MAX:
            self._learned.pop(next(iter(self._learned)))

    async def call(
        self,
        method: UnaryMethod[Request, Response],
        request: Request,
        *,
        timeout_s: float = TIMEOUT_S,
        repeatable: bool = False,
    ) -> Response:
        """Call `method` on the leader.

        Args:
            method: takes a channel, returns the stub's method: `lambda channel:
                RouterAdminStub(channel).Apply`.
            request: the message.
            timeout_s: deadline of the whole, redirections and repetitions included.
            repeatable: the call is idempotent, so an unknown outcome is tried again too.

        Raises:
            ControlError: what the router refused, or `UnreachableError`, `NotLeaderError` (nobody
                leads), `DeadlineError`, `UnknownOutcomeError`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        attempt_s = max(timeout_s / 2, 0.25) if repeatable else timeout_s
        route = _Route(self, self._leader or self._rotate())
        while True:
            remaining = deadline - loop.time()
            try:
                response = await self._attempt(
                    route.address, method, request, min(attempt_s, remaining)
                )
            except ControlError as error:
                if not isinstance(error, _PASSING) or not (error.retry_safe or repeatable):
                    raise
                wait_s = route.after(error)
                if loop.time() + wait_s >= deadline:
                    raise
                await asyncio.sleep(wait_s)
            else:
                self._leader = route.address
                return response

    async def call_any(
        self,
        method: UnaryMethod[Request, Response],
        request: Request,
        *,
        endpoint: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Response:
        """Call `method` on one router, whichever role it has: `endpoint`, else the first
        that answers.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        candidates = [endpoint] if endpoint is not None else self._in_turn()
        last: ControlError | None = None
        for place, address in enumerate(candidates):
            # Each gets its share of what is left, so a router that hangs does not take it all.
            share_s = (deadline - loop.time()) / (len(candidates) - place)
            try:
                return await self._attempt(address, method, request, share_s)
            except (DeadlineError, NotReadyError, UnreachableError) as error:
                last = error
        raise last or DeadlineError(f"no router answered within {timeout_s} s", retry_safe=True)

    async def stream_any(
        self,
        method: StreamMethod[Request, Response],
        request: Request,
        *,
        silence_s: float,
    ) -> AsyncGenerator[Response, None]:
        """Read a server stream from any router; each new stream goes to the next one in turn.

        Ends when the server ends it.

        Args:
            method: takes a channel, returns the stub's method.
            request: the message that opens the stream.
            silence_s: a stream without a message for this long is taken for dead.

        Raises:
            ControlError: the stream broke; open another one.
        """
        address = self._rotate()
        channel = await self._channel(address)
        await self._connect(channel, address, CONNECT_TIMEOUT_S)
        stream = method(channel)(request)
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    message = await stream.read()
                if message is grpc.aio.EOF:
                    return
                yield message  # type: ignore[misc]  # EOF is an instance of a private class
        except TimeoutError:
            raise DeadlineError(f"{address}: silent for {silence_s} s", retry_safe=True) from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address) from error
        finally:
            stream.cancel()

    async def _attempt(
        self,
        address: str,
        method: UnaryMethod[Request, Response],
        request: Request,
        timeout_s: float,
    ) -> Response:
        loop = asyncio.get_running_loop()
        started = loop.time()
        channel = await self._channel(address)
        await self._connect(channel, address, min(timeout_s, CONNECT_TIMEOUT_S))
        left = timeout_s - (loop.time() - started)
        if left <= 0:
            raise DeadlineError(
                f"{address}: connected too late to send the request", retry_safe=True
            )
        try:
            return await method(channel)(request, timeout=left)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address) from error

    async def _connect(self, channel: grpc.aio.Channel, address: str, timeout_s: float) -> None:
        """Bring `channel` to READY, so that a failure here proves that nothing was sent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state in _BROKEN:
                        break
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                else:
                    return
        if self._leader == address:
            self._leader = None
        raise UnreachableError(
            f"router {address} cannot be reached; routers known: {', '.join(self.endpoints)}"
        )

    async def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            interceptors = trace_client_interceptors()
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(
                    address, options=self._options, interceptors=interceptors
                )
            else:
                channel = grpc.aio.secure_channel(
                    address, self._credentials, options=self._options, interceptors=interceptors
                )
            self._channels[address] = channel
            for gone in self._channels.keys() - {*self.endpoints, self._leader, address}:
                if (forgotten := self._channels.pop(gone, None)) is not None:
                    await forgotten.close()
        return channel

    def _rotate(self) -> str:
        """Return the next of all known addresses."""
        endpoints = self.endpoints
        self._next = (self._next + 1) % len(endpoints)
        return endpoints[self._next - 1]

    def _in_turn(self) -> list[str]:
        """Return all addresses, the leader's first."""
        return list(dict.fromkeys([*([self._leader] if self._leader else []), *self.endpoints]))

    def _redirect(self, error: ControlError, asked: str) -> str | None:
        """Take in what `error` says about the cluster; return where to go next, if it says so."""
        if self._leader == asked:
            self._leader = None
        if not isinstance(error, NotLeaderError):
            return None
        self.learn((*error.member_addresses, error.leader_address))
        target = error.leader_address
        return target if target and target != asked else None


class _Route:
    """Where one call goes next, and after which pause."""

    def __init__(self, channel: LeaderChannel, address: str) -> None:
        self._channel = channel
        self._hops = 0
        self._failures = 0
        self._pause_s = PAUSE_MIN_S
        self.address = address

    def after(self, error: ControlError) -> float:
        """Take in a passing failure: set the next address, return the pause before it."""
        if isinstance(error, BusyError):
            return error.retry_after_s
        target = self._channel._redirect(error, self.address)
        if target is not None and self._hops < HOPS_MAX:
            self._hops += 1
            self.address = target
            return 0.0
        self._hops = 0
        self._failures += 1
        self.address = self._channel._rotate()
        if self._failures % len(self._channel.endpoints):
            return 0.0
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, PAUSE_MAX_S)
        return pause_s * random.uniform(0.75, 1.25)


_PASSING = (
    BusyError,
    DeadlineError,
    NotLeaderError,
    NotReadyError,
    UnknownOutcomeError,
    UnreachableError,
)
_BROKEN = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
