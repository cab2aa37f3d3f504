"""The commands that run the place: up, down, reap, gc, promote, join."""

from typing import Any

import click

from flows.command import Example, common, emit, say, show_progress


@click.command("up", cls=Example, example="iv up --prefect-port 4201 --mlflow-port 5001")
@click.option(
    "--prefect-port", type=click.IntRange(1, 65535), default=4200, show_default=True, envvar="IV_PREFECT_PORT"
)
@click.option("--mlflow-port", type=click.IntRange(1, 65535), default=5000, show_default=True, envvar="IV_MLFLOW_PORT")
@click.option("--limit", type=click.IntRange(min=1), default=2, show_default=True, help="Runs at once on this machine.")
@click.option(
    "--database",
    metavar="URL",
    envvar="IV_DATABASE",
    help="PostgreSQL for both servers, postgresql://user@host/name; else SQLite. With a password: set IV_DATABASE.",
)
@common
def up_command(
    prefect_port: int, mlflow_port: int, limit: int, database: str | None, home: str | None, as_json: bool
) -> None:
    """Start a Prefect server, a worker and an MLflow server on this machine; what runs already stays."""
    from tasks import runtime, services

    place = runtime.prepare(home)
    plan = services.Plan(place, prefect_port, mlflow_port, limit, database)
    running = services.up(plan)
    if as_json:
        return emit({"home": str(place), "running": running})
    say(f"Prefect  {plan.prefect_url}")
    say(f"MLflow   {plan.mlflow_url}")
    say(f"data     {services.shown_database(plan)}")
    say(f"worker   pool {services.POOL}, {limit} runs at once")
    say(f"logs     {place / 'logs'}")
    say(f"shell    . {place / 'run' / 'env.sh'}   (for prefect and mlflow; iv finds them by itself)")


@click.command("down", cls=Example, example="iv down --home workspace")
@common
def down_command(home: str | None, as_json: bool) -> None:
    """Stop what `iv up` started, and everything that it started."""
    from tasks import runtime, services

    stopped = services.down(runtime.prepare(home))
    if as_json:
        return emit({"stopped": stopped})
    say(f"stopped: {', '.join(stopped)}" if stopped else "nothing ran")


@click.command("reap", cls=Example, example="iv reap --home workspace")
@common
def reap_command(home: str | None, as_json: bool) -> None:
    """Mark the runs that were killed together with their worker; every start does that, too."""
    from tasks import runtime

    runtime.prepare(home)
    from tasks import reaper

    found = reaper.reap()
    if as_json:
        return emit({"reaped": found})
    say(f"marked: {', '.join(found)}" if found else "every open run is alive")


@click.command("gc", cls=Example, example="iv gc --older-than 14 --delete")
@click.option("--delete", is_flag=True, help="Delete; without it the list is only shown.")
@click.option(
    "--older-than", type=click.FloatRange(min=0), default=7.0, show_default=True, help="Days; newer ones stay."
)
@click.option("--pin", metavar="KIND/KEY", help="Keep this artifact from now on, with what it was made from.")
@common
def gc_command(delete: bool, older_than: float, pin: str | None, home: str | None, as_json: bool) -> None:
    """List (or delete) what no report, registered model, pin or recent run stands on; here, never in IV_REMOTE."""
    import os
    from pathlib import Path

    from ivcore.store import garbage, object_store
    from ivcore.store.artifacts import Store
    from tasks import pins, runtime

    place = Path(runtime.prepare(home))
    if pin:
        pins.pin(place, pin)
    kept = pins.roots(place)
    found = {a.id: a.path for a in garbage.garbage(Store(place), kept, older_than * 86400)}
    found |= {str(f.relative_to(place)): f for f in garbage.leftovers(place, older_than * 86400)}
    rows: list[dict[str, Any]] = [{"artifact": name, "bytes": garbage.size(path)} for name, path in found.items()]
    for path in found.values() if delete else []:
        garbage.remove(path)
    there = object_store.shown(os.environ.get(object_store.ADDRESS, ""))
    if as_json:
        return emit({"deleted": delete, "kept": kept, "garbage": rows, "untouched": there})
    for row in rows:
        say(f"{row['bytes']:>14,}  {row['artifact']}")
    total = sum(row["bytes"] for row in rows)
    ends = "deleted" if delete else "would be deleted with --delete"
    say(f"{len(rows)} artifacts, {total:,} bytes, {ends}; {len(kept)} are kept for their own sake")
    if there:
        say(f"nothing in {there} is deleted: other machines stand on it")


@click.command("promote", cls=Example, example="iv promote s2 --challenger newest")
@click.argument("model", type=click.Choice(["s2", "clip"]))
@click.option("--challenger", default="newest", show_default=True, help="A version's number, an alias, or newest.")
@common
def promote_command(model: str, challenger: str, home: str | None, as_json: bool) -> None:
    """Compare a registered model with the champion on the same queries; the alias moves only to a better one."""
    from pathlib import Path

    from ivcore.config import EvalConfig
    from tasks import promotion, runtime

    found = promotion.promote(Path(runtime.prepare(home)), model, challenger, EvalConfig())
    if as_json:
        return emit(vars(found))
    say(f"iv-{model} {found.challenger}: {'champion' if found.promoted else 'not promoted'}; {found.why}")


@click.command("join", cls=Example, example="iv join --home /shared/workspace --node 1")
@click.option("--node", type=click.IntRange(min=1), required=True, help="This machine's number; 0 runs the flow.")
@click.option("--once", is_flag=True, help="Take part in one phase and end.")
@common
def join_command(node: int, once: bool, home: str | None, as_json: bool) -> None:
    """Lend this machine to the training of another (train.nodes > 1) that works on the same workspace folder."""
    from pathlib import Path

    from ivcore.train.join import join
    from tasks import runtime

    show_progress()
    took = join(Path(runtime.prepare(home)), node, once)
    if as_json:
        emit({"phases": took})
