"""PostgreSQL in place of SQLite, for Prefect and MLflow alike: one address, and in that database a schema for each.

The address holds a password, so it reaches the two servers by their environment and nobody else: no command line, no
file, no line of a log. A password in ~/.pgpass instead of the address is found by both.
"""

import importlib.util
from pathlib import Path
from typing import Any

from ivcore.errors import UserError, WorkError

SETTING = "IV_DATABASE"  # in the environment of `iv up`; IV_DATABASE and --database are one
NAMES = ("prefect", "mlflow")  # of the schemas: both keep a table `alembic_version`
PREFECT = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
PREFECT_SCHEMA = "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH"
MLFLOW = "MLFLOW_BACKEND_STORE_URI"
NOTE = "run/database"


def parsed(address: str) -> Any:
    """The address as SQLAlchemy's URL.

    Raises:
        UserError: it is no address of a PostgreSQL database, or the driver that MLflow needs is missing.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    example = "give postgresql://user@host:5432/name"
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise UserError(f"the database's address cannot be read; {example}") from None
    if url.get_backend_name() not in ("postgresql", "postgres") or not url.database:
        raise UserError(f"database {shown(url)} is no PostgreSQL database with a name; {example}")
    if importlib.util.find_spec("psycopg2") is None:
        raise UserError("MLflow needs psycopg2 for PostgreSQL; pip install 'ivflow[postgresql]'")
    return url


def shown(url: Any) -> str:
    """The address without its password."""
    return str(url.render_as_string(hide_password=True))


def environment(address: str) -> dict[str, str]:
    """What the two servers find in their environment."""
    url = parsed(address)
    query = dict(url.query)
    ssl = {"ssl": query["sslmode"]} if "sslmode" in query else {}  # as asyncpg calls it
    rest = {name: value for name, value in query.items() if name != "sslmode"}
    prefect = url.set(drivername="postgresql+asyncpg", query={**rest, **ssl})
    mlflow = url.set(drivername="postgresql+psycopg2", query={**query, "options": "-csearch_path=mlflow"})
    return {
        PREFECT: prefect.render_as_string(hide_password=False),
        PREFECT_SCHEMA: "prefect, public",
        MLFLOW: mlflow.render_as_string(hide_password=False),
    }


def make_schemas(address: str) -> None:
    """Make the two schemas; WorkError when the database does not answer or does not let us."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    url = parsed(address)
    engine = create_engine(url.set(drivername="postgresql+psycopg2"))
    try:
        with engine.begin() as connection:
            for name in NAMES:
                connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {name}"))
    except SQLAlchemyError as e:
        words = " ".join(str(getattr(e, "orig", None) or e).split())
        words = words.replace(url.password, "***") if url.password else words
        raise WorkError(f"database {shown(url)}: {words[:300]}") from None
    finally:
        engine.dispose()


def need_the_same(home: Path, address: str | None) -> None:
    """UserError where the workspace's servers had their data elsewhere before: their runs would be gone from sight."""
    now, note = _place(address), home / NOTE
    before = note.read_text().strip() if note.is_file() else now
    if before != now:
        raise UserError(
            f"the servers of {home} had their data in {before}, not in {now}; set {SETTING} as it was, "
            f"or delete {note} to begin there with no runs"
        )


def note(home: Path, address: str | None) -> None:
    """Write down where the data are, for the next start."""
    (home / NOTE).write_text(_place(address) + "\n")


def _place(address: str | None) -> str:
    return shown(parsed(address)) if address else "sqlite"
