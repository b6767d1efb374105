"""The Typer application: how a command is entered, and the options that several share."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from fastinit import __version__
from fastinit._io.text import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SourceName = Annotated[
    str,
    typer.Argument(
        help="A plan or job file (TOML, JSON), a Hugging Face config.json, a safetensors file or index, a folder of "
        "any of these, or module:function that returns a torch module.",
        metavar="SOURCE",
    ),
]
SchemeName = Annotated[
    str | None,
    typer.Option("--scheme", help="For all tensors that it exists for, e.g. he_normal.", metavar="SCHEME"),
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", help="For the names that match; later ones win. May be repeated.", metavar="PATTERN=SCHEME"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
DtypeName = Annotated[
    str | None, typer.Option("--dtype", help="One of float16, bfloat16, float32, float64; for all that is drawn.")
]
MaxTensors = Annotated[
    int | None,
    typer.Option("--max-tensors", help="Of a model that a config or code builds. Default: 200,000.", metavar="N"),
]
SeedNumber = Annotated[int | None, typer.Option("--seed", help="Instead of the source's own.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a checkpoint.", metavar="DIR")]
Threads = Annotated[int | None, typer.Option("--threads", help="Default: those that `fastinit info` shows.")]


_PLAIN = str.maketrans(dict.fromkeys("▏▎▍▌▋▊▉█", "#"))

Command = TypeVar("Command", bound=Callable[..., None])


def command(function: Command) -> Command:
    """Enter a command: an error of its own is one line and exit code 1, Ctrl-C is 130; a warning is one line."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                function(*args, **options)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has gone, as `| head` does
            _drop_output()
            raise typer.Exit(1) from None
        except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
            print(f"fastinit: {_one_line(error)}", file=sys.stderr)
            _drop_output()
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print("fastinit: interrupted", file=sys.stderr)
            raise typer.Exit(130) from None

    app.command()(run)
    return function


def _drop_output() -> None:
    """Forget what cannot be printed: Python would try again at its end, and complain then."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    if sys.stderr is not None:  # closed, as by `2>&-`
        print(f"fastinit: warning: {_one_line(message)}", file=sys.stderr)


def _one_line(error: Exception | str) -> str:
    """What an error says, without line breaks and signs that a terminal obeys: names may hold any."""
    said = str(error)
    if isinstance(error, MemoryError) and not said:  # Python's own says nothing
        from fastinit._runtime.limits import in_words

        said = f"out of memory. {in_words()}"
    text = " ".join(line.strip() for line in said.splitlines())
    return printable(text)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fastinit {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: fastinit write examples/gpt2.toml --out gpt2-init")
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Fill the weights of large neural networks at memory speed."""


def show(text: str) -> None:
    """Print a text that has bars in it, in signs that the terminal has."""
    try:
        print(text)
    except UnicodeEncodeError:
        print(text.translate(_PLAIN).encode("ascii", "backslashreplace").decode())


def report_file(path: Path | None, data: bytes | None = None) -> None:
    """Write a report, which is there as a whole or not at all; without data see to it that it can be written.

    Raises:
        OSError: there is no such folder, or the path is one.
    """
    if path is None:
        return
    with contextlib.suppress(FileNotFoundError):
        path.stat()  # raises what is wrong with a path, as a loop of links
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    if data is None:
        return
    from fastinit._io.files import opened, put

    if path.exists() and not path.is_file():  # a device or a pipe, which must not be replaced
        # Without O_NONBLOCK a pipe that nobody reads would wait for a reader.
        with opened(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY) as descriptor:
            os.set_blocking(descriptor, True)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
    else:
        put(path.resolve(), data, sync=False)


def main() -> None:
    """The entry point of the `fastinit` command."""
    if sys.stdout is None:  # closed, as by `>&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  until the end
    app()
