"""The page of the command line, out of the commands themselves."""

import inspect
import re
from pathlib import Path

import typer

import fastinit.cli  # noqa: F401  enters the commands
from fastinit.cli._app import app


def _options(command, context) -> list[str]:
    """A table of a command's arguments and options, as its help lists them; nothing where it has none."""
    records = [parameter.get_help_record(context) for parameter in command.params if parameter.name != "help"]
    rows = [f"| `{name}` | {_text(told)} |" for name, told in filter(None, records)]
    return ["| | |", "| --- | --- |", *rows, ""] if rows else []


def _text(told: str) -> str:
    return re.sub(r"([|*<>\[\]])", r"\\\1", told)


def page() -> str:
    """Markdown: a section for every command, in the order of `fastinit --help`."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="fastinit")
    lines = []
    for name, command in group.commands.items():
        with typer.Context(command, info_name=name, parent=context) as inside:
            usage = " ".join(command.collect_usage_pieces(inside))
            text, _, example = inspect.cleandoc(command.help or "").partition("\n\nExample: ")
            example = example or (command.epilog or "").removeprefix("Example: ")
            lines += [f"## `fastinit {name}`", "", _text(text), ""]
            lines += ["```sh", f"fastinit {name} {usage}".rstrip(), "```", ""]
            lines += _options(command, inside)
            if example:
                lines += [f"Example: `{example}`", ""]
    return "\n".join(lines)


def write(path: Path) -> None:
    path.write_text(page(), encoding="utf-8")
