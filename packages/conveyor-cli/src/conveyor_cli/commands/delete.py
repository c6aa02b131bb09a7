"""``conveyor delete``: take documents out of the cluster."""

import asyncio
import sys
import time
from collections.abc import Sequence

import click

from conveyor_cli.commands.apply import read
from conveyor_cli.context import Context, connected_command
from conveyor_cli.errors import CommandFailed, ExitCode, shown
from conveyor_cli.kind_param import KindParam
from conveyor_cli.options import examples
from conveyor_cli.output import print_data
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import NotFoundError
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_registry.model import DEFAULT_NAMESPACE, KINDS, DocumentKey

GONE_INTERVAL_S = 0.1

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
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Wait until it is gone, at most --timeout. [default wait]",
)
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
    wait: bool,
    ignore_not_found: bool,
) -> None:
    """Delete a pipeline or a service's document.

    A deleted pipeline drains first; then its positions are forgotten, and applied again it begins
    anew. To stop it and keep its place, apply it with `enabled: false`.
    """
    keys = _keys(kind, name, namespace, paths)
    if not (yes or dry_run) and sys.stdin.isatty():
        listed = "\n".join(f"  {key}" for key in keys)
        click.confirm(f"Delete\n{listed}\n?", abort=True, err=True)

    async def work(client: RouterAdminClient) -> tuple[list[wire.DeleteResponse], list[bool]]:
        answers = [
            await client.delete(key.kind, key.name, namespace=key.namespace, dry_run=dry_run)
            for key in keys
        ]
        deadline = time.monotonic() + (context.timeout_s if wait and not dry_run else 0)
        return answers, [await _gone(client, key, deadline) for key in keys]

    answers, gone = context.run(work)
    words = [_outcome(answer, done, dry_run) for answer, done in zip(answers, gone, strict=True)]
    if context.output != "table":
        data = {"kind": "DeleteResult", "dry_run": dry_run, **_data(keys, words)}
        print_data(data, context.output)
    for key, answer, word in zip(keys, answers, words, strict=True):
        for problem in answer.problems:
            click.secho(f"{key}: {shown(problem.message)}", fg="yellow", err=True)
        if context.output == "table":
            click.echo(f"{key} {word}")
    absent = sum(not answer.existed for answer in answers)
    if absent and not ignore_not_found:
        noun = "document does" if absent == 1 else "documents do"
        raise CommandFailed(f"{absent} {noun} not exist", ExitCode.NOT_FOUND)


async def _gone(client: RouterAdminClient, key: DocumentKey, deadline: float) -> bool:
    """Whether the document is gone, or goes before the deadline: pipelines end in steps."""
    while True:
        try:
            await client.get(key.kind, key.name, namespace=key.namespace)
        except NotFoundError:
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(GONE_INTERVAL_S)


def _outcome(answer: wire.DeleteResponse, gone: bool, dry_run: bool) -> str:
    if not answer.existed:
        return "does not exist"
    if dry_run:
        return "would be deleted"
    return "deleted" if gone else "is being deleted"


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


def _data(keys: Sequence[DocumentKey], words: Sequence[str]) -> dict[str, object]:
    return {
        "documents": [
            {**key._asdict(), "outcome": word} for key, word in zip(keys, words, strict=True)
        ]
    }
