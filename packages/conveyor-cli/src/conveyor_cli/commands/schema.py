"""``conveyor schema`` and ``conveyor completion``: texts for editors and shells."""

import json

import click
from click.shell_completion import get_completion_class

from conveyor_cli.options import examples
from conveyor_config import SCHEMA_KINDS, json_schema


@click.command(
    epilog=examples(
        "conveyor schema > conveyor.schema.json",
        "conveyor schema Pipeline",
        "conveyor schema router",
        "In an editor with the YAML language server, put this line on top of a manifest:",
        "# yaml-language-server: $schema=conveyor.schema.json",
    ),
)
@click.argument(
    "kind", type=click.Choice(SCHEMA_KINDS, case_sensitive=False), default=SCHEMA_KINDS[0]
)
def schema(kind: str) -> None:
    """Print the JSON Schema of manifests (the default), of one kind, or of settings."""
    click.echo(json.dumps(json_schema(kind), indent=2))


@click.command(
    epilog=examples(
        "conveyor completion bash > ~/.local/share/bash-completion/completions/conveyor",
        'conveyor completion zsh > "${fpath[1]}/_conveyor"',
        "conveyor completion fish > ~/.config/fish/completions/conveyor.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    made = get_completion_class(shell)
    root = ctx.find_root().command
    if made is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(made(root, {}, "conveyor", "_CONVEYOR_COMPLETE").source())
