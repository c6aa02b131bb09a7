"""Show something again and again until the user has seen enough.

On a terminal the view is redrawn in place; away from one, each changed state is printed once, and
structured output is one line (JSON) or one document (YAML) per change. A moment without a leader
does not end a watch: the reason is shown until the next answer.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from conveyor_cli.context import Context
from conveyor_cli.errors import shown
from conveyor_cli.output import SCHEMA_VERSION, console_for_output, dumped, print_renderable
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import (
    BusyError,
    ControlError,
    DeadlineError,
    NotLeaderError,
    NotReadyError,
    UnknownOutcomeError,
    UnreachableError,
)

T = TypeVar("T")

_PASSING = (
    BusyError,
    DeadlineError,
    NotLeaderError,
    NotReadyError,
    UnknownOutcomeError,
    UnreachableError,
)


async def watch(
    context: Context,
    client: RouterAdminClient,
    *,
    fetch: Callable[[RouterAdminClient], Awaitable[T]],
    render: Callable[[T], RenderableType],
    data: Callable[[T], dict[str, Any]],
    interval_s: float,
) -> None:
    """Fetch and show each ``interval_s`` seconds; ends with Ctrl-C or an error that will stay."""
    if context.output == "table" and sys.stdout.isatty():
        await _redraw(client, fetch, render, interval_s)
        return
    last = ""
    while True:
        try:
            state = await fetch(client)
        except _PASSING as error:
            click.echo(f"waiting: {shown(error.message)}", err=True)
        else:
            structured = data(state)
            text = dumped(structured, "json", compact=True)
            if text != last:
                last = text
                _print(context, render(state), structured)
        await asyncio.sleep(interval_s)


def _print(context: Context, rendered: RenderableType, data: dict[str, Any]) -> None:
    if context.output == "table":
        print_renderable(rendered, "")
    else:
        marked = {"schema_version": SCHEMA_VERSION, **data}
        click.echo(dumped(marked, context.output, compact=True))
    sys.stdout.flush()


async def _redraw(
    client: RouterAdminClient,
    fetch: Callable[[RouterAdminClient], Awaitable[T]],
    render: Callable[[T], RenderableType],
    interval_s: float,
) -> None:
    shown_last: RenderableType = Text("waiting for the routers")
    with Live(shown_last, console=console_for_output(), auto_refresh=False) as live:
        while True:
            try:
                shown_last = render(await fetch(client))
                live.update(shown_last, refresh=True)
            except _PASSING as error:
                live.update(Group(shown_last, _waiting(error)), refresh=True)
            await asyncio.sleep(interval_s)


def _waiting(error: ControlError) -> Text:
    return Text(f"waiting: {shown(error.message)}", style="yellow")
