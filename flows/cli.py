"""The console script `iv`. Each command parses, calls one function and prints one result; heavy imports are inside."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flows.cli_advise import advise_command
from flows.cli_datasets import datasets_command, init_command
from flows.cli_models import export_command, import_command, parity_command
from flows.cli_ops import down_command, gc_command, join_command, promote_command, reap_command, up_command
from flows.cli_search import search_command
from flows.command import Example, common, emit, plain, say, show_progress
from ivcore.errors import UserError, WorkError


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """--set, --seeds and --allow-unverified."""
    command = click.option("--allow-unverified", is_flag=True, help="Read annotations of unknown checksum.")(command)
    command = click.option("--seeds", help="Seeds to run, e.g. 0,1,2; each is a whole run.")(command)
    return click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="Set one value of the config.")(
        command
    )


def quiet_prefect() -> None:
    """Keep Prefect's tracebacks off the terminal, its server's too: the error comes once, as our line.

    Has to come before Prefect is imported. The dashboard has the tracebacks, `--debug` ours.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def load(config: str, sets: tuple[str, ...], seeds: str | None, allow_unverified: bool = False) -> Any:
    """The checked config of a command line."""
    from ivcore.config import load

    if allow_unverified:
        sets = (*sets, "data.allow_unverified=true")
    if seeds is not None:
        if not all(s.strip().isdigit() for s in seeds.split(",")):
            raise UserError(f"--seeds {seeds!r} is no list of whole numbers; write --seeds 0,1,2")
        sets = (*sets, f"seeds=[{seeds}]")
    try:
        return load(config, sets)
    except OSError as e:
        raise UserError(f"{config} cannot be read ({e.strerror}); give a TOML file or the name of a run") from None


NO_CAPTIONS = ("ingest", "decode", "featurize")  # steps that read none


def run_flow(config: Any, home: str | None, step: str | None = None) -> dict[str, Any]:
    """Run the whole flow, or up to a step, and give what a command prints."""
    from ivcore.config import variants
    from ivcore.datasets import files
    from tasks import redirects, runtime
    from tasks.interrupt import ends_at_once

    redirects.refuse(Path.cwd())
    show_progress()
    for _, _, one in variants(config):  # a wrong path is said at once: Prefect takes seconds to start
        for data in (one.data, *(one.data.of(part) for part in (*one.data.mix, *one.grid.data))):
            files.need(data, captions=step not in NO_CAPTIONS)
    place = runtime.prepare(home)  # before Prefect is imported
    runtime.need_room(place, runtime.START_MB)  # a server that finds none would be waited for in vain
    if not click.get_current_context().params["debug"]:
        quiet_prefect()
    try:
        with ends_at_once():
            if step is None:
                from flows.everything import everything

                stages = everything(config, str(place))
            elif step == "grid":
                from flows.grid import grid

                stages = grid(config, str(place))
            else:
                from flows.single import single

                stages = single(config, step, str(place))  # type: ignore[call-overload]  # one of our own commands
    except (UserError, WorkError):
        raise
    except Exception as e:
        runtime.need_room(place, runtime.FULL_MB)  # on a full disk things fail in many words; this is the plain one
        if "Failed to reach API" in str(e):
            raise WorkError(runtime.NO_SERVER.format(os.environ.get("PREFECT_API_URL"))) from e
        raise
    return {"home": str(place), "stages": stages}


def verdict(out: dict[str, Any], as_json: bool) -> None:
    """Print where the report is and what it says."""
    home = Path(out["home"])
    folder = home / "reports" / "latest"
    found = json.loads((folder / "report.json").read_text())
    out |= {"report_json": str(folder / "report.json"), "report_html": str(folder / "report.html")}
    if as_json:
        return emit({**out, "report": found})
    from ivcore.verdict.page import terminal
    from tasks import runtime

    say(terminal(found))
    tools = "" if shutil.which("iv") else os.path.relpath(Path(sys.executable).parent) + "/"
    say(f"\nreport   {folder / 'report.html'}")
    say(f"tables   {tools}iv sql --home {home}")
    store = shlex.quote(runtime.sqlite(home / "mlflow" / "mlflow.db"))
    say(f"MLflow   {tools}mlflow server --backend-store-uri {store} --port 5000")
    say(f"Prefect  PREFECT_HOME={shlex.quote(f'{home}/prefect')} {tools}prefect server start --port 4200")


def summary(out: dict[str, Any], as_json: bool) -> None:
    """Print the stages of a run, one line each."""
    if as_json:
        return emit(out)
    for s in out["stages"]:
        name, how = f"{s['step']}{':' + s['label'] if s['label'] else ''}", "found" if s["cached"] else "made"
        say(f"{name:<24} {s['arm']}.{s['seed']:<4} {how:<6} {s['rows_ok']:>8} rows {s['wall_s']:>9.1f} s  {s['key']}")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ivflow", message="%(version)s")
def main() -> None:
    """Video-text retrieval with InternVideo2: from raw videos to an honest verdict between s2 and clip."""


@main.command(cls=Example, example="iv demo --seed 0")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the whole demo.")
@click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="Set one value of the config.")
@common
def demo(seed: int, sets: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Make synthetic videos, run the whole flow on them and print the verdict."""
    verdict(run_flow(load("demo", sets, str(seed)), home), as_json)


@main.command(cls=Example, example="iv run my.toml --set train.clip.lr=1e-4 --seeds 0,1,2")
@click.argument("config")
@configured
@common
def run(
    config: str, sets: tuple[str, ...], seeds: str | None, allow_unverified: bool, home: str | None, as_json: bool
) -> None:
    """Run the whole flow of CONFIG: a TOML file or the name of a run."""
    verdict(run_flow(load(config, sets, seeds, allow_unverified), home), as_json)


def _step_command(step: str, says: str) -> None:
    name = step.replace("_", "-")

    @main.command(name, cls=Example, example=f"iv {name} demo --home workspace", help=says)
    @click.argument("config")
    @configured
    @common
    def command(
        config: str, sets: tuple[str, ...], seeds: str | None, allow_unverified: bool, home: str | None, as_json: bool
    ) -> None:
        checked = load(config, sets, seeds, allow_unverified)
        if step in ("report", "grid"):
            verdict(run_flow(checked, home, None if step == "report" else step), as_json)
        else:
            summary(run_flow(checked, home, step), as_json)


EARLIER = "Earlier steps are found or made."
_step_command("ingest", "Data set of CONFIG -> manifest and captions.")
_step_command("decode", f"Manifest -> frames. {EARLIER}")
_step_command("fit_s2", f"Frames -> s2, phase by phase. {EARLIER}")
_step_command("featurize", f"Frames -> features of the s2 trunk just trained. {EARLIER}")
_step_command("fit_clip", f"Features -> clip, phase by phase. {EARLIER}")
_step_command("score", f"Checkpoints and features -> scores. {EARLIER}")
_step_command("report", f"Scores -> the report. {EARLIER}")
_step_command(
    "grid", "Both models of CONFIG at every number of frames and dtype of its grid; one report over all cells."
)


@main.command(cls=Example, example='iv sql "SELECT path, error FROM manifest WHERE error IS NOT NULL"')
@click.argument("statement", required=False)
@common
def sql(statement: str | None, home: str | None, as_json: bool) -> None:
    """Ask the tables of the workspace: records, manifest, frames, scores, rows, stages and more.

    Without a STATEMENT it lists them with their columns, and some questions to begin with.
    """
    from ivcore.store.catalog import QUESTIONS, TABLES, query
    from tasks.runtime import default_home

    columns, rows = query(Path(home) if home else default_home(), TABLES if statement is None else statement)
    if as_json:
        return emit({"columns": columns, "rows": [list(row) for row in rows]})
    if statement is None:
        for table, names in rows:
            say(f"{table:<10} {names}")
        for question, text in QUESTIONS.items():
            say(f"\n{question}:\n{text}")
        return
    table = [columns, *(["" if value is None else plain(str(value), "") for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)] if sys.stdout.isatty() else [0] * len(columns)
    for line in table:
        say("\t".join(cell.ljust(width) for cell, width in zip(line, widths)))


@main.command(cls=Example, example="iv doctor --home workspace")
@click.option("--verify", is_flag=True, help="Read every artifact of the workspace; set damaged ones aside.")
@common
def doctor(verify: bool, home: str | None, as_json: bool) -> None:
    """Say what this machine has, what is missing, and the cure."""
    from tasks.doctor import examine

    found = examine(home, verify)
    if as_json:
        emit({"ok": all(c["ok"] for c in found), "checks": found})
    for check in [] if as_json else found:
        cure = f"  -> {check['cure']}" if not check["ok"] else ""
        say(f"{'ok ' if check['ok'] else 'BAD'}  {check['name']:<12} {check['value']}{cure}")
    if not all(c["ok"] for c in found):
        sys.exit(1)


MODELS = (import_command, export_command, parity_command)
OPERATIONS = (up_command, down_command, reap_command, gc_command, promote_command, join_command)
for _command in (advise_command, search_command, datasets_command, init_command, *MODELS, *OPERATIONS):
    main.add_command(_command)


if __name__ == "__main__":
    main()
