"""Files of the working folder that Prefect reads by itself and that would send a run to another server or database."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcore.errors import UserError

# What decides where runs are kept, by its table in TOML.
REDIRECTS = {
    "PREFECT_API_URL": ("api", "url"),
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": ("server", "database", "connection_url"),
    "PREFECT_API_DATABASE_CONNECTION_URL": ("api", "database_connection_url"),  # its older name
    "PREFECT_PROFILES_PATH": ("profiles_path",),
}


def refuse(folder: Path) -> None:
    """UserError naming the file and the setting, unless the environment sets the same one: then it was asked for.

    The value is not shown: a database's address holds a password.
    """
    for file, name in found(folder):
        if not os.environ.get(name):
            raise UserError(
                f"{file} sets {name}: Prefect would follow it away from the workspace; "
                f"export {name} to ask for that, or run iv in another folder"
            )


def found(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, setting) of each redirection in .env, prefect.toml and pyproject.toml of a folder."""
    if (env := folder / ".env").is_file():
        lines = [line.strip().removeprefix("export ") for line in env.read_text(errors="replace").splitlines()]
        names = {line.partition("=")[0].strip().upper() for line in lines if line.partition("=")[2].strip()}
        yield from ((env, name) for name in REDIRECTS if name in names)
    for file, header in ((folder / "prefect.toml", ()), (folder / "pyproject.toml", ("tool", "prefect"))):
        settings = _toml(file)
        yield from ((file, name) for name, table in REDIRECTS.items() if _at(settings, (*header, *table)))


def _toml(file: Path) -> Any:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as e:
        raise UserError(f"{file} is no TOML ({e}), and Prefect reads it; mend it or run iv in another folder") from None


def _at(table: Any, path: tuple[str, ...]) -> Any:
    """The value there, or None."""
    for name in path:
        table = table.get(name) if isinstance(table, dict) else None
    return table
