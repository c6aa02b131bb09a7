"""``conveyor get``: lists of what the cluster knows."""

import time
from typing import Any

import click
from rich.console import RenderableType

from conveyor_cli.context import Context, connected_command
from conveyor_cli.kind_param import KindParam
from conveyor_cli.options import examples
from conveyor_cli.output import dumped, print_data, print_renderable, table
from conveyor_cli.resources import document_of
from conveyor_cli.views import VIEWS, View
from conveyor_cli.watching import watch
from conveyor_grpc.clients import RouterAdminClient


@click.command(
    epilog=examples(
        "conveyor get pipelines",
        "conveyor get services -o json",
        "conveyor get assignments flights --watch",
        "conveyor get documents -o yaml > backup.yaml",
    ),
)
@click.argument("kind", type=KindParam(VIEWS))
@click.argument("name", required=False, default="")
@click.option("-n", "--namespace", default="", help="Only this namespace. [default all]")
@click.option("-w", "--watch", "watching", is_flag=True, help="Show changes until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3_600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch looks.",
)
@connected_command
def get(
    context: Context, *, kind: str, name: str, namespace: str, watching: bool, interval: float
) -> None:
    """List pipelines, services, sidecars, groups, assignments, positions or documents.

    Sources, transforms, sinks and lookups are the documents of these kinds. NAME keeps one of
    them; of assignments and positions it keeps a pipeline's. Documents written as YAML can be
    applied again.
    """
    view = VIEWS[kind]

    async def fetch(client: RouterAdminClient) -> list[Any]:
        return await view.fetch(client, namespace, name)

    def render(found: list[Any]) -> RenderableType:
        now = time.time()
        return table(view.columns, [view.row(item, now) for item in found])

    if watching:
        context.run(
            lambda client: watch(
                context,
                client,
                fetch=fetch,
                render=render,
                data=lambda found: _data(view, found),
                interval_s=interval,
            )
        )
        return
    found = context.run(fetch)
    if context.output == "table":
        if found:
            print_renderable(render(found))
        else:
            where = f" in namespace {namespace}" if namespace else ""
            click.echo(f"no {kind}{where}", err=True)
    elif view.data is document_of and context.output == "yaml":
        for item in found:
            click.echo(dumped(view.data(item), "yaml", compact=True))
    else:
        print_data(_data(view, found), context.output)


def _data(view: View, found: list[Any]) -> dict[str, Any]:
    return {"kind": f"{view.kind}List", "items": [view.data(item) for item in found]}
