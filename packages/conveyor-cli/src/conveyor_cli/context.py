"""What commands that talk to routers need: where they are, how to print, how long to wait."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from conveyor_cli.errors import ExitCode, failure_of
from conveyor_cli.options import (
    DEFAULT_ENDPOINT,
    DEFAULT_TIMEOUT_S,
    ENDPOINT_VARIABLE,
    OutputFormat,
    Shared,
    shared_options,
)
from conveyor_cli.tracing import command_span
from conveyor_config import ConfigError
from conveyor_grpc.channel import LeaderChannel, split_endpoints
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import ControlError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """The shared options, resolved."""

    endpoints: tuple[str, ...]
    output: OutputFormat
    timeout_s: float
    command: str

    @classmethod
    def of(cls, ctx: click.Context, given: Shared) -> "Context":
        """From the command's options over the group's over the environment over the defaults.

        Raises:
            click.BadParameter: an endpoint is not ``host:port``.
        """
        shared = given.over(ctx.obj if isinstance(ctx.obj, Shared) else Shared())
        text = shared.endpoint or os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT
        try:
            endpoints = tuple(split_endpoints(text))
        except ValueError as error:
            raise click.BadParameter(str(error), ctx=ctx, param_hint="--endpoint") from None
        return cls(
            endpoints=endpoints,
            output=shared.output or "table",
            timeout_s=DEFAULT_TIMEOUT_S if shared.timeout is None else shared.timeout,
            command=ctx.command_path,
        )

    def run(self, work: Callable[[RouterAdminClient], Awaitable[T]]) -> T:
        """Do asynchronous work with a client of the routers, under a root span.

        Raises:
            CommandFailed: with the exit code and next move of what went wrong.
        """

        async def connected() -> T:
            async with LeaderChannel(self.endpoints) as channel:
                return await work(RouterAdminClient(channel, timeout_s=self.timeout_s))

        try:
            with command_span(self.command):
                return asyncio.run(connected())
        except (ControlError, ConfigError) as error:
            raise failure_of(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(int(ExitCode.INTERRUPTED)) from None


def connected_command(function: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command and hand it the resolved :class:`Context` first."""

    @shared_options
    @click.pass_context
    @functools.wraps(function)
    def wrapped(
        ctx: click.Context,
        /,
        *,
        endpoint: str | None,
        output: OutputFormat | None,
        timeout: float | None,
        **given: Any,
    ) -> None:
        function(Context.of(ctx, Shared(endpoint, output, timeout)), **given)

    return wrapped
