"""What every command of `iv` has: an example, --home, --json, --debug, errors in one line, progress, a JSON object."""

import contextlib
import errno
import functools
import json
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import click

from ivcore.errors import UserError, WorkError

PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # errors that another workspace cures
POWERFUL = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of one, line separators
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # of the direction of writing
HOME_HELP = "Workspace folder; else IV_HOME, else ./workspace."


class Example(click.Command):
    """A command that shows an example below its help."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        kwargs["epilog"] = f"Example:  {example}"
        super().__init__(*args, **kwargs)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """--home, --json and --debug, as every command has them; errors are told in one line (`reported`)."""

    @functools.wraps(command)
    def work(*args: Any, debug: bool, **kwargs: Any) -> Any:
        with reported(debug):
            return command(*args, **kwargs)

    work = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(work)
    work = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")(work)
    return click.option("--home", type=click.Path(file_okay=False), help=HOME_HELP)(work)


@contextlib.contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turn an error into one line and its exit status: 2 the caller's mistake, 1 work that failed."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):  # click ends quietly after `| head`
        raise
    except KeyboardInterrupt:
        click.echo("iv: stopped; run it again and it goes on from the steps that are done", err=True)
        sys.exit(130)
    except Exception as e:
        if debug:
            raise
        say(f"iv: {one_line(e)}", err=True)
        sys.exit(2 if isinstance(e, UserError) else 1)


def one_line(error: Exception) -> str:
    """What went wrong, in a line."""
    if isinstance(error, (UserError, WorkError)):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno:
        where = f": {error.filename}" if error.filename else ""
        cure = "; make room or give --home another folder" if error.errno in PLACE else ""
        return f"{error.strerror}{where}{cure}"
    if isinstance(error, ImportError) and (file := shadow()):
        return f"{file} stands before ivflow's own package of that name; rename it, or take its folder off PYTHONPATH"
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (--debug shows where)"


def shadow() -> str:
    """A file of the caller's that Python finds instead of our package `tasks`, a name that others use; or nothing."""
    spec = PathFinder.find_spec("tasks")
    theirs = (
        spec is not None and spec.origin and Path(spec.origin).resolve().parent != Path(__file__).parents[1] / "tasks"
    )
    return str(spec.origin) if spec and theirs else ""


def plain(text: str, kept: str = "\n\t") -> str:
    """The text for a terminal: what would move its cursor, colour it or turn its direction is written out.

    File names and captions are other people's; a name may hold any character but these get no power here.
    """
    return "".join(
        c
        if c in kept or (unicodedata.category(c) not in POWERFUL and unicodedata.bidirectional(c) not in TURNS)
        else repr(c)[1:-1]
        for c in text
    )


def say(text: str, err: bool = False) -> None:
    """A line, or several, for people."""
    click.echo(plain(text), err=err)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def show_progress() -> None:
    """Our own progress to stderr, and no tracebacks from Prefect: the error comes once, as our line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s  %(message)s", "%H:%M:%S"))
    ours = logging.getLogger("iv")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)


def emit(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, default=str))
