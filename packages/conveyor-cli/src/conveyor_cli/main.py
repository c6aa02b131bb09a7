"""The ``conveyor`` command.

Commands are imported when they are called, so that ``--help`` and completion answer at once; their
one-line helps stand here, and a test holds them equal to what the commands say themselves.
"""

import importlib
import sys
import traceback

import click
from click.formatting import HelpFormatter

from conveyor_cli.options import OutputFormat, Shared, shared_options

COMMANDS: dict[str, tuple[str, str]] = {
    "apply": ("apply", "Make the cluster hold the documents in files: all of them, or none."),
    "get": (
        "get",
        "List pipelines, services, sidecars, groups, assignments, positions or documents.",
    ),
    "describe": (
        "describe",
        "Show one pipeline, service, sidecar, group or document with all that is known of it.",
    ),
    "delete": ("delete", "Delete a pipeline or a service's document."),
    "status": (
        "status",
        "Show routers and their leader, pipelines with counters and rates, sidecars.",
    ),
    "validate": ("apply", "Check documents in files without asking any cluster."),
    "schema": (
        "schema",
        "Print the JSON Schema of manifests (the default), of one kind, or of settings.",
    ),
    "completion": ("schema", "Print the completion script of a shell."),
}
"""Name of each command: the module in ``commands`` that has it, and its help in one line."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"conveyor_cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; a mistake names the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from conveyor_registry.model import nearest  # noqa: PLC0415 - only for a mistake

            close = nearest(args[0], COMMANDS)
            meant = f" Did you mean {close!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Begin with:
  conveyor status                      is there a cluster, who leads it?
  conveyor validate -f flights.yaml    is the manifest right?
  conveyor apply -f flights.yaml       declare it
  conveyor status flights --watch      see it run

\b
Exit codes:
  0    done
  1    refused: something is not valid; nothing was changed
  2    the command line is wrong
  3    what was asked for does not exist
  4    no router can be reached, or none leads; nothing was changed
  5    the outcome is unknown: look, then repeat
  70   a mistake in Conveyor
  130  interrupted""",
)
@shared_options
@click.version_option(package_name="conveyor-cli", prog_name="conveyor")
@click.pass_context
def cli(
    ctx: click.Context,
    endpoint: str | None,
    output: OutputFormat | None,
    timeout: float | None,
) -> None:
    """Declare pipelines and watch them run.

    Any router will do as --endpoint: the leader is found through it. Results go to standard
    output, everything else to standard error.
    """
    ctx.obj = Shared(endpoint, output, timeout)


def main() -> None:
    """The entry point of the console script."""
    try:
        cli(prog_name="conveyor")
    except Exception:  # the last resort of a process: say what it is, and with which code
        traceback.print_exc()
        click.echo("error: this is a mistake in Conveyor, please report it", err=True)
        sys.exit(70)
