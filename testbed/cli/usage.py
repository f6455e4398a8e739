"""What is said of a command line that is not understood: the same words and the same guess for every command.

click finds the mistake; here it becomes an error as all others are: what was wanted, what was found, what to do.
"""

import re
from typing import Final

import click

from plugin.core.errors import InputError
from testbed.nearest import hint, listing, nearest

_NOT_A_CHOICE: Final = re.compile(r"'(?P<found>.*)' is not one of ", re.DOTALL)
"""How click begins its sentence; the exception has the value nowhere else."""


class Group(click.Group):
    """A group of commands that knows what was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names.

        Raises:
            InputError: There is none.
        """
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            raise InputError(
                f"{ctx.command_path} has no command {name!r}",
                hint=hint(name, self.list_commands(ctx), there_is="it has:"),
            )
        return super().resolve_command(ctx, args)


def told(error: click.ClickException) -> tuple[str, str]:
    """A mistake that click found, as (message, hint)."""
    message, guess = _sentence(error)
    context = getattr(error, "ctx", None)
    if context is None:
        return message, guess.strip()
    return message, f"{guess}`{context.command_path} --help` has usage and examples"


def _sentence(error: click.ClickException) -> tuple[str, str]:
    if isinstance(error, click.NoSuchOption):
        meant = nearest(error.option_name, _options(error.ctx))
        return f"there is no option {error.option_name}", _guess(meant)
    if isinstance(error, click.BadParameter) and error.param is not None and isinstance(error.param.type, click.Choice):
        found = _NOT_A_CHOICE.match(error.message)
        if found is not None:
            choices = [str(choice) for choice in error.param.type.choices]
            where = f"{error.param.opts[0]}: " if isinstance(error.param, click.Option) else ""
            message = f"{where}wanted one of {listing(choices)}, found {found['found']!r}"
            return message, _guess(nearest(found["found"], choices))
    text = error.format_message()
    return text[:1].lower() + text[1:].removesuffix("."), ""


def _guess(meant: str | None) -> str:
    return f"did you mean '{meant}'? " if meant else ""


def _options(context: click.Context | None) -> list[str]:
    """Every option of the command, those first that people use."""
    if context is None:
        return []
    parameters = context.command.get_params(context)
    shown = [one for one in parameters if isinstance(one, click.Option) and not one.hidden]
    return [name for one in shown for name in (*one.opts, *one.secondary_opts)]
