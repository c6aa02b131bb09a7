"""Kinds as arguments of commands: plural or singular, in any case."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from conveyor_registry.model import nearest

if TYPE_CHECKING:
    Parameter = click.ParamType[str]
else:
    Parameter = click.ParamType


class KindParam(Parameter):
    """One of some kinds, given by their plurals; completion offers these."""

    name = "kind"

    def __init__(self, kinds: Iterable[str]) -> None:
        self.kinds = tuple(kinds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The plural, or a usage error that names the nearest."""
        word = str(value).lower()
        for kind in self.kinds:
            if word in (kind, kind.removesuffix("s")):
                return kind
        close = nearest(word, self.kinds)
        meant = f"; did you mean {close}?" if close else ""
        message = f"{value!r} is not one of: {', '.join(self.kinds)}{meant}"
        raise click.BadParameter(message, ctx=ctx, param=param)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The kinds that begin so."""
        return [CompletionItem(kind) for kind in self.kinds if kind.startswith(incomplete)]
