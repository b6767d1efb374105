"""The Typer application: how a command is entered, and the options that several share."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import typer
import typer.core

from fastinit import __version__
from fastinit._io.terminal import encodable, say
from fastinit._io.text import LONGEST_LINE, printable
from fastinit.cli._settings import ignore_settings

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
    str | None, typer.Option("--dtype", help="float16, bfloat16 (bf16), float32 or float64; for all that is drawn.")
]
MaxTensors = Annotated[
    int | None,
    typer.Option("--max-tensors", help="Of a model that a config or code builds. Default: 200,000.", metavar="N"),
]
SeedNumber = Annotated[int | None, typer.Option("--seed", help="Instead of the source's own.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a checkpoint.", metavar="DIR")]
Threads = Annotated[int | None, typer.Option("--threads", help="Default: those that `fastinit info` shows.")]

Command = TypeVar("Command", bound=Callable[..., None])

TRACEBACK = "FASTINIT_TRACEBACK"  # an environment variable: not empty, errors are printed with their tracebacks
_UsageError: Any = typer.BadParameter.__base__  # typer itself defines it, or click, by typer's version


class _Application(typer.core.TyperGroup):
    """The commands. Errors of the command line, and of printing, are shown as those of the commands are."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        raising = options | {"standalone_mode": False}
        if not options.get("standalone_mode", True):
            return super().main(*arguments, **raising)
        try:
            code = super().main(*arguments, **raising) or 0
            if not code:
                sys.stdout.flush()
        except Exception as error:
            code = _report(error)
        finally:
            for stream in (sys.stdout, sys.stderr):
                _settle(stream)
        sys.exit(code)


app = typer.Typer(
    cls=_Application,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(function: Command) -> Command:
    """Enter a command: an error is one line and exit code 1, Ctrl-C is 130; a warning is one line."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            with warnings.catch_warnings(), _one_line_logs():
                warnings.showwarning = _show_warning
                function(*args, **options)
        except (typer.Exit, typer.Abort, _UsageError):
            raise
        except BaseException as error:
            raise typer.Exit(_report(error)) from None

    app.command()(run)
    return function


def _report(error: BaseException) -> int:
    """Print an error on stderr; return the exit code."""
    if os.environ.get(TRACEBACK):
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(printable(line, LONGEST_LINE))
    match error:
        case BrokenPipeError():  # the reader of our output has gone, as `| head` does
            return 1
        case KeyboardInterrupt():
            say("fastinit: interrupted")
            return 130
        case _UsageError():
            return _report_usage(error)
        case MemoryError() if not str(error):  # Python's own says nothing
            from fastinit._runtime.limits import in_words

            say(_one_line(f"fastinit: out of memory. {in_words()}"))
        case OSError() | ValueError() | TypeError() | ImportError() | MemoryError():  # of wrong input
            say(_one_line(f"fastinit: {_text(error)}"))
        case _:
            kind, last = type(error).__name__, [*traceback.walk_tb(error.__traceback__)][-1]
            place = f"{Path(last[0].f_code.co_filename).name}, line {last[1]}"
            advice = f"{TRACEBACK}=1 shows the traceback; report it if the fault is fastinit's"
            text = ": ".join(filter(None, [f"unexpected {kind} in {place}", _text(error).rstrip(".")]))
            say(_one_line(f"fastinit: {text}. {advice}"))
    return 1


def _report_usage(error: Any) -> int:
    """Print what is wrong with a command line, or the help where it is empty."""
    shown = io.StringIO()
    if type(error).show is _UsageError.show:
        error.message = printable(error.message)
    error.show(shown)
    for line in shown.getvalue().splitlines():
        say(printable(line, LONGEST_LINE))
    return int(error.exit_code)


def _settle(stream: TextIO | None) -> None:
    """Forget what cannot be printed: Python would try again at its end, and change the exit code."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError:  # full, or without a reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(_one_line(f"fastinit: warning: {_text(message)}"))


@contextlib.contextmanager
def _one_line_logs() -> Iterator[None]:
    """Escape and shorten what libraries log for a with-block: transformers quotes a config's values, and all of it."""
    make = logging.getLogRecordFactory()

    def shortened(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        with contextlib.suppress(Exception):  # arguments that do not fit, which the handler reports
            record.msg, record.args = _one_line(record.getMessage(), LONGEST_LINE - 100), ()  # the rest: names, times
        return record

    logging.setLogRecordFactory(shortened)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


def _text(error: object) -> str:
    try:
        return str(error)
    except Exception:  # code of others may define exceptions that cannot be shown
        return "no message"


def _one_line(text: str, most: int = LONGEST_LINE) -> str:
    """A message without line breaks and signs that a terminal obeys, and not too long: names may hold any."""
    return printable(" ".join(line.strip() for line in text.splitlines()), most)


def _show_version(wanted: bool) -> None:
    if wanted:
        show(f"fastinit {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: fastinit write examples/gpt2.toml --out gpt2-init")
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Fill the weights of large neural networks, the same bits on every machine."""


def show(*lines: str) -> None:
    """Print lines on stdout, escaped, in characters that it has."""
    print(encodable("\n".join(map(printable, lines)), sys.stdout))


# How files begin that may be replaced by a report: pages and pictures. Others may be what the command reads.
_REPORTS = b"<!DOCTYPE html", b"\x89PNG", b"%PDF", b"<?xml", b"<svg"


def report_file(path: Path | None, data: bytes | None = None) -> None:
    """Write a report, which is there as a whole or not at all; without data see to it that it can be written.

    A link in its place is replaced, not followed. A pipe or a device is written to.

    Raises:
        OSError: there is no such folder, the path is one, or nobody reads the pipe.
        ValueError: it would replace a file that is no report.
    """
    if path is None:
        return
    with contextlib.suppress(FileNotFoundError):
        path.stat()  # raises what is wrong with a path, as a loop of links
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            begin = file.read(max(map(len, _REPORTS)))
        if begin and not begin.startswith(_REPORTS):
            raise ValueError(f"a report must replace nothing but a page or a picture. Remove the file first: {path}")
    if data is None:
        return
    from fastinit._io.files import naming, put

    if not _is_device(path):
        put(path, data, sync=False)
        return
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe may have no reader
        with os.fdopen(descriptor, "wb") as file:
            os.set_blocking(descriptor, True)
            file.write(data)


def _is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which must not be replaced; of links only the system's own, as /dev/stdout.
    Anybody may put another link into a folder."""
    if path.is_symlink():
        folder = path.parent.resolve()
        return folder == Path("/dev") or folder.is_relative_to("/proc")
    return path.exists() and not path.is_file()


def main() -> None:
    """The entry point of the `fastinit` command."""
    for number in range(3):  # closed, as by `>&-`: a file of ours would get the number, and what libraries print there
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  until the end
    try:
        ignored = ignore_settings()
    except (ImportError, OSError) as error:
        say(_one_line(f"fastinit: {_text(error)}"))
        raise SystemExit(1) from None
    for name in ignored:
        _show_warning(f"{name} in the current folder is ignored: settings come from the environment")
    app()
