"""``conveyor delete``: take documents out of the cluster."""

import sys
from collections.abc import Sequence

import click

from conveyor_cli.commands.apply import read
from conveyor_cli.context import Context, connected_command
from conveyor_cli.errors import CommandFailed, ExitCode, shown
from conveyor_cli.kind_param import KindParam
from conveyor_cli.options import examples
from conveyor_cli.output import print_data
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_registry.model import DEFAULT_NAMESPACE, KINDS, DocumentKey

_KINDS = {f"{kind.lower()}s": kind for kind in KINDS}


@click.command(
    epilog=examples(
        "conveyor delete pipeline flights",
        "conveyor delete -f manifests/ --dry-run",
    ),
)
@click.argument("kind", type=KindParam(_KINDS), required=False)
@click.argument("name", required=False)
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True)
@click.option(
    "-f",
    "--filename",
    "paths",
    multiple=True,
    metavar="PATH",
    type=click.Path(allow_dash=True),
    help="Delete the documents named in a file or folder.",
)
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option("--ignore-not-found", is_flag=True, help="It is no error if something is not there.")
@connected_command
def delete(
    context: Context,
    *,
    kind: str | None,
    name: str | None,
    namespace: str,
    paths: Sequence[str],
    dry_run: bool,
    yes: bool,
    ignore_not_found: bool,
) -> None:
    """Delete a pipeline or a service's document.

    A deleted pipeline stops at once, without a drain, and its positions are forgotten: applied
    again it begins anew. To stop it and keep its place, apply it with `enabled: false`.
    """
    keys = _keys(kind, name, namespace, paths)
    if not (yes or dry_run) and sys.stdin.isatty():
        listed = "\n".join(f"  {key}" for key in keys)
        click.confirm(f"Delete\n{listed}\n?", abort=True, err=True)

    async def work(client: RouterAdminClient) -> list[wire.DeleteResponse]:
        return [
            await client.delete(key.kind, key.name, namespace=key.namespace, dry_run=dry_run)
            for key in keys
        ]

    answers = context.run(work)
    if context.output != "table":
        print_data(
            {"kind": "DeleteResult", "dry_run": dry_run, **_data(keys, answers)}, context.output
        )
    absent = 0
    for key, answer in zip(keys, answers, strict=True):
        for problem in answer.problems:
            click.secho(f"{key}: {shown(problem.message)}", fg="yellow", err=True)
        absent += not answer.existed
        if context.output == "table":
            word = "deleted" if answer.deleted else "would be deleted" if dry_run else "unchanged"
            click.echo(f"{key} {word if answer.existed else 'does not exist'}")
    if absent and not ignore_not_found:
        noun = "document does" if absent == 1 else "documents do"
        raise CommandFailed(f"{absent} {noun} not exist", ExitCode.NOT_FOUND)


def _keys(
    kind: str | None, name: str | None, namespace: str, paths: Sequence[str]
) -> list[DocumentKey]:
    if paths:
        if kind or name:
            raise click.UsageError("give either KIND and NAME, or -f, not both")
        return [document.key for document in read(paths).documents]
    if not kind or not name:
        raise click.UsageError("give KIND and NAME, or -f")
    return [DocumentKey(_KINDS[kind], namespace, name)]


def _data(keys: Sequence[DocumentKey], answers: Sequence[wire.DeleteResponse]) -> dict[str, object]:
    return {
        "documents": [
            {**key._asdict(), "existed": answer.existed, "deleted": answer.deleted}
            for key, answer in zip(keys, answers, strict=True)
        ]
    }
