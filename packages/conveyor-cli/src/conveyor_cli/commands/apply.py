"""``conveyor apply`` and ``conveyor validate``: documents from files into the cluster."""

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from conveyor_cli.context import Context, connected_command
from conveyor_cli.errors import CommandFailed, ExitCode, shown
from conveyor_cli.options import examples
from conveyor_cli.output import print_data
from conveyor_config import ConfigError, Manifest, Manifests, ManifestsRefused, load_manifests
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import NotFoundError
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.errors_pb2 import SEVERITY_ERROR
from conveyor_registry.model import (
    AnyDocument,
    Change,
    DocumentRefused,
    changes,
    parse_document,
    parse_path,
)

CONCURRENT_MAX = 16
CHANGES_MAX = 50

_OUTCOMES = {
    wire.APPLY_OUTCOME_CREATED: "created",
    wire.APPLY_OUTCOME_UPDATED: "updated",
    wire.APPLY_OUTCOME_UNCHANGED: "unchanged",
    wire.APPLY_OUTCOME_REFUSED: "refused",
    wire.APPLY_OUTCOME_SKIPPED: "skipped",
}
_COLOURS = {"created": "green", "updated": "yellow", "refused": "red"}

files_option = click.option(
    "-f",
    "--filename",
    "paths",
    multiple=True,
    required=True,
    metavar="PATH",
    type=click.Path(allow_dash=True),
    help="A file, a folder (its .yaml, .yml and .json files), or - for standard input. Repeatable.",
)


@click.command(
    epilog=examples(
        "conveyor apply -f flights.yaml",
        "conveyor apply -f manifests/ --dry-run",
        "cat flights.yaml | conveyor apply -f -",
    ),
)
@files_option
@click.option("--dry-run", is_flag=True, help="Ask the cluster what would happen; change nothing.")
@connected_command
def apply(context: Context, *, paths: Sequence[str], dry_run: bool) -> None:
    """Make the cluster hold the documents in files: all of them, or none.

    Applying twice changes nothing the second time. What changes is shown key by key. A pipeline
    that names a service which is not there yet is taken, and waits.
    """
    manifests = read(paths)
    for warning in manifests.warnings:
        _warn(str(warning))

    async def work(
        client: RouterAdminClient,
    ) -> tuple[list[AnyDocument | None], wire.ApplyResponse]:
        before = await _recorded(client, manifests)
        sent = [document.canonical() for document in manifests.documents]
        return before, await client.apply(sent, dry_run=dry_run)

    before, response = context.run(work)
    said = {(w.place, w.problem.message) for w in manifests.warnings}
    _say_problems(manifests, response, said)
    if context.output == "table":
        _print_outcomes(manifests, before, response, dry_run)
    else:
        print_data(_data(manifests, before, response, dry_run), context.output)
    refused = sum(a.outcome == wire.APPLY_OUTCOME_REFUSED for a in response.documents)
    if refused:
        noun = "document is" if refused == 1 else "documents are"
        raise CommandFailed(
            f"{refused} {noun} refused; nothing was changed", ExitCode.REFUSED, "correct the files"
        )


@click.command(
    epilog=examples(
        "conveyor validate -f flights.yaml",
        "conveyor validate -f manifests/ -o json",
    ),
)
@files_option
@connected_command
def validate(context: Context, *, paths: Sequence[str]) -> None:
    """Check documents in files without asking any cluster.

    Says everything that is wrong with each file, with line and path. What only a cluster knows
    (which services exist, what they promise) is checked by `conveyor apply --dry-run`.
    """
    form = context.output
    try:
        manifests = load_manifests(paths)
    except ManifestsRefused as error:
        if form == "table":
            raise _refusal(error) from None
        print_data({"kind": "ValidationResult", "valid": False, **_found(error.problems)}, form)
        raise click.exceptions.Exit(int(ExitCode.REFUSED)) from None
    except ConfigError as error:
        raise CommandFailed(str(error)) from None
    if form != "table":
        found = _found(manifests.warnings)
        print_data({"kind": "ValidationResult", "valid": True, **found}, form)
        return
    for warning in manifests.warnings:
        _warn(str(warning))
    for manifest in manifests:
        click.echo(f"{manifest.place_of()}: {manifest.document.key} is valid")


def read(paths: Sequence[str]) -> Manifests:
    """The documents in files.

    Raises:
        CommandFailed: with every problem of every file.
    """
    try:
        manifests = load_manifests(paths)
    except ManifestsRefused as error:
        raise _refusal(error) from None
    except ConfigError as error:
        raise CommandFailed(str(error)) from None
    if not len(manifests):
        raise CommandFailed(f"no document in {', '.join(paths)}")
    return manifests


def _refusal(error: ManifestsRefused) -> CommandFailed:
    errors = sum(problem.is_error for problem in error.problems)
    noun = "problem" if errors == 1 else "problems"
    return CommandFailed(f"{errors} {noun}\n{error}", ExitCode.REFUSED, "correct the files")


def _warn(text: str) -> None:
    click.secho(shown(text), fg="yellow", err=True)


async def _recorded(client: RouterAdminClient, manifests: Manifests) -> list[AnyDocument | None]:
    """What the cluster holds now in the place of each document."""
    limit = asyncio.Semaphore(CONCURRENT_MAX)

    async def one(document: AnyDocument) -> AnyDocument | None:
        async with limit:
            try:
                found = await client.get(document.kind, document.name, namespace=document.namespace)
                return parse_document(found.document)
            except (NotFoundError, DocumentRefused):
                return None

    return list(await asyncio.gather(*(one(document) for document in manifests.documents)))


def _say_problems(
    manifests: Manifests, response: wire.ApplyResponse, said: set[tuple[str, str]]
) -> None:
    for manifest, answer in zip(manifests, response.documents, strict=True):
        for problem in answer.problems:
            place = manifest.place_of(parse_path(problem.path))
            if (place, problem.message) in said:
                continue
            is_error = problem.severity == SEVERITY_ERROR
            severity = "error" if is_error else "warning"
            meant = f" (did you mean {problem.nearest!r}?)" if problem.nearest else ""
            path = f"{problem.path}: " if problem.path else ""
            text = f"{place}: {severity}: {path}{problem.message}{meant}"
            click.secho(shown(text), fg="red" if is_error else "yellow", err=True)


def _print_outcomes(
    manifests: Manifests,
    before: Sequence[AnyDocument | None],
    response: wire.ApplyResponse,
    dry_run: bool,
) -> None:
    for manifest, old, answer in zip(manifests, before, response.documents, strict=True):
        outcome = _OUTCOMES.get(answer.outcome, "unknown")
        word = click.style(outcome, fg=_COLOURS.get(outcome), dim=outcome not in _COLOURS)
        version = f" (version {answer.version})" if answer.version else ""
        note = " (dry run)" if dry_run else ""
        click.echo(f"{manifest.document.key} {word}{version}{_phase(answer)}{note}")
        if answer.outcome != wire.APPLY_OUTCOME_UPDATED:
            continue
        found = changes(old, manifest.document) if old is not None else []
        for change in found[:CHANGES_MAX]:
            click.echo(f"  {_change_line(change)}")
        if len(found) > CHANGES_MAX:
            click.echo(f"  … and {len(found) - CHANGES_MAX} more")


def _phase(answer: wire.AppliedDocument) -> str:
    if not answer.phase or answer.outcome == wire.APPLY_OUTCOME_REFUSED:
        return ""
    waits = answer.phase == "Pending" and answer.reason and not answer.problems
    return f", {answer.phase}" + (f": {shown(answer.reason)}" if waits else "")


def _change_line(change: Change) -> str:
    if change.before is None:
        return click.style(f"+ {change.path}: {_value(change.after)}", fg="green")
    if change.after is None:
        return click.style(f"- {change.path}: {_value(change.before)}", fg="red")
    return click.style(
        f"~ {change.path}: {_value(change.before)} -> {_value(change.after)}", fg="yellow"
    )


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return shown(str(value))


def _data(
    manifests: Manifests,
    before: Sequence[AnyDocument | None],
    response: wire.ApplyResponse,
    dry_run: bool,
) -> dict[str, Any]:
    return {
        "kind": "ApplyResult",
        "dry_run": dry_run,
        "applied": response.applied,
        "revision": response.revision,
        "documents": [
            _document_data(manifest, old, answer)
            for manifest, old, answer in zip(manifests, before, response.documents, strict=True)
        ],
    }


def _document_data(
    manifest: Manifest, old: AnyDocument | None, answer: wire.AppliedDocument
) -> dict[str, Any]:
    document = manifest.document
    updated = old is not None and answer.outcome == wire.APPLY_OUTCOME_UPDATED
    return {
        "kind": document.kind,
        "namespace": document.namespace,
        "name": document.name,
        "place": manifest.place_of(),
        "outcome": _OUTCOMES.get(answer.outcome, "unknown"),
        "version": answer.version,
        "phase": answer.phase,
        "reason": answer.reason,
        "changes": [change._asdict() for change in changes(old, document)] if updated else [],
        "problems": [
            {
                "severity": "error" if problem.severity == SEVERITY_ERROR else "warning",
                "place": manifest.place_of(parse_path(problem.path)),
                "path": problem.path,
                "message": problem.message,
                "nearest": problem.nearest or None,
            }
            for problem in answer.problems
        ],
    }


def _found(problems: Sequence[Any]) -> dict[str, Any]:
    return {
        "problems": [
            {
                "severity": found.problem.severity.value,
                "place": found.place,
                "path": found.problem.where,
                "message": found.problem.message,
                "nearest": found.problem.nearest,
            }
            for found in problems
        ]
    }
