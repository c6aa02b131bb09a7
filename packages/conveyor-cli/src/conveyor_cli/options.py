"""The options that stand on the group and on each command alike.

``conveyor -o json get pipelines`` and ``conveyor get pipelines -o json`` mean the same; where both
are given, the command's wins. Nothing heavy is imported here: help and completion stay quick.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

OutputFormat = Literal["table", "json", "yaml"]

DEFAULT_ENDPOINT = "localhost:50051"
DEFAULT_TIMEOUT_S = 10.0
ENDPOINT_VARIABLE = "CONVEYOR_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Shared:
    """The shared options as given at one place; None where they were not."""

    endpoint: str | None = None
    output: OutputFormat | None = None
    timeout: float | None = None

    def over(self, base: "Shared") -> "Shared":
        """These options, with the gaps filled from a base."""
        return Shared(
            endpoint=base.endpoint if self.endpoint is None else self.endpoint,
            output=base.output if self.output is None else self.output,
            timeout=base.timeout if self.timeout is None else self.timeout,
        )


_OPTIONS = (
    click.option(
        "-e",
        "--endpoint",
        metavar="HOST:PORT[,…]",
        help="Routers, any of them, as a comma list."
        f" [env {ENDPOINT_VARIABLE}; default {DEFAULT_ENDPOINT}]",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        help="Form of the output. [default table]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1, 60),
        metavar="SECONDS",
        help=f"How long to wait for the routers. [default {DEFAULT_TIMEOUT_S:g}]",
    ),
)


def examples(*lines: str) -> str:
    """The end of a command's help: lines that can be typed as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def shared_options(function: F) -> F:
    """Add the shared options to a group or command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
