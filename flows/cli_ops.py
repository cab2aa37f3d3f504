"""The commands that run the place: up, down, reap."""

import click

from flows.command import Example, common, emit, reported


@click.command("up", cls=Example, example="iv up --prefect-port 4201 --mlflow-port 5001")
@click.option(
    "--prefect-port", type=click.IntRange(1, 65535), default=4200, show_default=True, envvar="IV_PREFECT_PORT"
)
@click.option("--mlflow-port", type=click.IntRange(1, 65535), default=5000, show_default=True, envvar="IV_MLFLOW_PORT")
@click.option("--limit", type=click.IntRange(min=1), default=2, show_default=True, help="Runs at once on this machine.")
@common
def up_command(prefect_port: int, mlflow_port: int, limit: int, home: str | None, as_json: bool, debug: bool) -> None:
    """Start a Prefect server, a worker and an MLflow server on this machine; what runs already stays."""
    with reported(debug):
        from tasks import runtime, services

        place = runtime.prepare(home)
        plan = services.Plan(place, prefect_port, mlflow_port, limit)
        running = services.up(plan)
        if as_json:
            return emit({"home": str(place), "running": running})
        click.echo(f"Prefect  {plan.prefect_url}")
        click.echo(f"MLflow   {plan.mlflow_url}")
        click.echo(f"worker   pool {services.POOL}, {limit} runs at once")
        click.echo(f"logs     {place / 'logs'}")
        click.echo(f"shell    . {place / 'run' / 'env.sh'}   (for prefect and mlflow; iv finds them by itself)")


@click.command("down", cls=Example, example="iv down --home workspace")
@common
def down_command(home: str | None, as_json: bool, debug: bool) -> None:
    """Stop what `iv up` started, and everything that it started."""
    with reported(debug):
        from tasks import runtime, services

        stopped = services.down(runtime.prepare(home))
        if as_json:
            return emit({"stopped": stopped})
        click.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing ran")


@click.command("reap", cls=Example, example="iv reap --home workspace")
@common
def reap_command(home: str | None, as_json: bool, debug: bool) -> None:
    """Mark the runs that were killed together with their worker; every start does that, too."""
    with reported(debug):
        from tasks import runtime

        runtime.prepare(home)
        from tasks import reaper

        found = reaper.reap()
        if as_json:
            return emit({"reaped": found})
        click.echo(f"marked: {', '.join(found)}" if found else "every open run is alive")
