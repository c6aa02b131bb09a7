"""``conveyor status``: how the cluster, its pipelines and its sidecars are."""

import click

from conveyor_cli.cluster_view import ClusterView, look, rendered, structured
from conveyor_cli.context import Context, connected_command
from conveyor_cli.errors import CommandFailed, ExitCode
from conveyor_cli.options import examples
from conveyor_cli.output import print_data, print_renderable
from conveyor_cli.watching import watch
from conveyor_grpc.clients import RouterAdminClient


@click.command(
    epilog=examples(
        "conveyor status",
        "conveyor status flights --watch",
        "conveyor status -o json",
    ),
)
@click.argument("pipeline", required=False, default="")
@click.option("-n", "--namespace", default="", help="Only this namespace. [default all]")
@click.option("-w", "--watch", "watching", is_flag=True, help="Show changes until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3_600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch looks.",
)
@connected_command
def status(
    context: Context, *, pipeline: str, namespace: str, watching: bool, interval: float
) -> None:
    """Show routers and their leader, pipelines with counters and rates, sidecars.

    Counters are what the sidecars have counted since they started, and what the present leader
    has seen of their earlier lives; rates are those of the last heartbeats. Exits with 4 when
    nothing can be agreed.
    """

    async def fetch(client: RouterAdminClient) -> ClusterView:
        return await look(client, context.endpoints, namespace, pipeline)

    if watching:
        context.run(
            lambda client: watch(
                context,
                client,
                fetch=fetch,
                render=rendered,
                data=structured,
                interval_s=interval,
            )
        )
        return
    view = context.run(fetch)
    if context.output == "table":
        print_renderable(rendered(view))
    else:
        print_data(structured(view), context.output)
    if view.hindrance:
        raise CommandFailed(
            "the routers cannot agree on anything now",
            ExitCode.UNAVAILABLE,
            "a majority of the routers must run and reach each other",
        )
