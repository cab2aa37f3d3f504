"""Where Prefect and MLflow keep their things, and what they must not do. Imports neither, so it can run before them.

Prefect fixes its home and server settings when it is imported: `prepare` comes first.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ivcore.errors import WorkError

# Quiet and offline. A value the user has set stays.
QUIET = {
    "DO_NOT_TRACK": "true",  # MLflow takes only the word true
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # the new dashboard asks an analytics host even with analytics off
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # three runs at once need more than the usual 20
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # else two lines on stdout, and --json is broken
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # the usual 7 wait four minutes for a server that is not there
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
TRACKING = "MLFLOW_TRACKING_URI"
NO_SERVER = "PREFECT_API_URL = {!r}: no Prefect server answers there; start it, or unset the variable to do without"
START_MB = 64  # Prefect's and MLflow's databases, and then something
FULL_MB = 2
_ours: str | None = None  # the tracking address we set ourselves, to tell it from the user's


def default_home() -> Path:
    """IV_HOME, else ./workspace."""
    return Path(os.environ.get("IV_HOME") or "workspace")


LOOPBACK = ("localhost", "127.0.0.1", "::1")


def prepare(home: Path | str | None = None) -> Path:
    """Make the workspace's folders, point Prefect and MLflow into it, and return it as an absolute path."""
    global _ours
    home = Path(home or default_home()).absolute()
    try:
        for name in ("artifacts", "mlflow", "prefect", "reports", "cache"):
            (home / name).mkdir(parents=True, exist_ok=True)  # Prefect makes its own without parents
    except (FileExistsError, NotADirectoryError):
        raise WorkError(f"workspace {home} is in the way of a file; give --home another folder") from None
    except OSError as e:
        raise WorkError(f"workspace {home} cannot be made ({e.strerror}); give --home a folder you may write") from None
    if not os.access(home, os.W_OK):
        raise WorkError(f"workspace {home} cannot be written; give --home a folder you may write")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MPLCONFIGDIR", str(home / "cache" / "matplotlib"))
    for name in ("NO_PROXY", "no_proxy"):  # what lies on this machine is never asked for through a proxy
        there = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*there, *LOOPBACK]))
    if "prefect" not in sys.modules:  # in a worker Prefect is there already, with the worker's own home
        os.environ["PREFECT_HOME"] = str(home / "prefect")
        if "?" in str(home):  # Prefect's own address would end there
            os.environ[DATABASE] = sqlite(home / "prefect" / "prefect.db", "aiosqlite")
    # One workspace, one database: where its servers run, everything goes through them.
    servers = running(home)
    if "prefect" in servers and "prefect" not in sys.modules:
        os.environ.setdefault("PREFECT_API_URL", f"{servers['prefect']['url']}/api")
    if os.environ.get(TRACKING) in (None, "", _ours):
        _ours = servers["mlflow"]["url"] if "mlflow" in servers else sqlite(home / "mlflow" / "mlflow.db")
        os.environ[TRACKING] = _ours
    return home


def sqlite(file: Path, driver: str = "pysqlite") -> str:
    """The address of a SQLite file. A `?` would end its path, which is then written as a URI of SQLite's own.

    With a driver's name: MLflow takes what follows a plain `sqlite:///` for a path and makes its folders.

    >>> sqlite(Path("/a b/c.db")), sqlite(Path("/a?b/c.db"))
    ('sqlite:////a b/c.db', 'sqlite+pysqlite:///file:/a%3Fb/c.db?uri=true')
    """
    return f"sqlite+{driver}:///file:{quote(str(file))}?uri=true" if "?" in str(file) else f"sqlite:///{file}"


def listed(home: Path) -> Path:
    """The file that lists what `iv up` has started."""
    return home / "run" / "up.json"


def running(home: Path) -> dict[str, Any]:
    """Which of the workspace's servers run now: name -> pid, began (see there), url."""
    try:
        entries = json.loads(listed(home).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {name: entry for name, entry in entries.items() if began(entry["pid"]) == entry["began"]}


def began(pid: int) -> int | None:
    """When a process began, clock ticks since boot; None when it is gone. Tells it from a later one of its number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def need_room(home: Path, megabytes: int) -> None:
    """WorkError when the workspace's disk has less room than that."""
    free = shutil.disk_usage(home).free // 2**20
    if free < megabytes:
        raise WorkError(
            f"the disk of workspace {home} is full ({free} MB free); make room or give --home another folder"
        )


def tracking_uri() -> str:
    """MLflow's address: the user's, else the workspace's own database (after `prepare`)."""
    return os.environ[TRACKING]
