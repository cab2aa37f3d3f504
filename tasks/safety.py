"""Whether a workspace and its servers are open to whom they should be: loopback, no foreign web page, no other user."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tasks import runtime

STRANGER = "http://stranger.example"
PORTS = {"prefect": ("IV_PREFECT_PORT", 4200), "mlflow": ("IV_MLFLOW_PORT", 5000)}
LISTENS = "0A"  # the state in /proc/net/tcp


def servers(home: Path) -> list[dict[str, Any]]:
    """One row a running server: name, ok, value, cure; where none runs, whether the ports of `iv up` are free."""
    found = runtime.running(home)
    if not found:
        return [_row("servers", "", "none runs; `iv up` starts them"), *(_free_port(name) for name in PORTS)]
    rows = []
    for name in ("prefect", "worker", "mlflow"):
        if name not in found:
            rows.append(_row(name, f"{name} does not run, the others do", cure="iv up"))
        elif name == "worker":
            rows.append(_row(name, "", f"runs, process {found[name]['pid']}"))
        else:
            url = found[name]["url"]
            rows.append(_row(name, {"prefect": _prefect, "mlflow": _mlflow}[name](url), f"{url} answers, safely bound"))
    return rows


def permissions(home: Path) -> list[dict[str, Any]]:
    """One row: whether we may write all of the workspace, and others nothing of it."""
    folders = [home, *sorted(p for p in home.iterdir() if p.is_dir())]
    shut = [str(p) for p in folders if not os.access(p, os.R_OK | os.W_OK | os.X_OK)]
    if shut:
        return [_row("permissions", f"{shut[0]} cannot be written by this user", cure=f"chown -R $USER {shut[0]}")]
    wide = [str(p) for p in folders if p.stat().st_mode & 0o002]
    if wide:
        return [
            _row("permissions", f"every user may write {wide[0]}, and so start programs", cure=f"chmod o-w {wide[0]}")
        ]
    return [_row("permissions", "", "all folders are ours, no other user may write")]


def _free_port(name: str) -> dict[str, Any]:
    """Whether the port that `iv up` would give a server is free."""
    variable, usual = PORTS[name]
    port = int(os.environ.get(variable) or usual)
    fault = f"port {port} of {name} is taken by another program" if bound(port) else ""
    return _row(f"port {port}", fault, f"free for {name}", cure=f"{variable}={port + 1}, or stop what ss -ltnp shows")


def _prefect(url: str) -> str:
    """What is wrong with the Prefect server, or nothing."""
    status, headers = _ask(f"{url}/api/ready", Origin=STRANGER)
    if status != 200:
        return f"{url} does not answer, or its database does not ({status or 'no connection'})"
    if headers.get("access-control-allow-origin") in ("*", STRANGER):
        return f"{url} answers every web page: PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS is open"
    body = json.dumps({"limit": 1}).encode()
    status, _ = _ask(f"{url}/api/flow_runs/filter", body)
    if status not in (401, 403):  # 401: a login comes before
        return f"{url} takes a call without a CSRF token: PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED is off"
    return _open_to_all(url, login=status == 401)


def _mlflow(url: str) -> str:
    """What is wrong with the MLflow server, or nothing."""
    status, _ = _ask(f"{url}/health")
    if status != 200:
        return f"{url} does not answer ({status or 'no connection'})"
    status, _ = _ask(f"{url}/api/2.0/mlflow/experiments/search?max_results=1", Host="stranger.example")
    if status != 403:
        return f"{url} answers under a foreign name (status {status}): set --allowed-hosts"
    return _open_to_all(url, login=False)


def _open_to_all(url: str, login: bool) -> str:
    """What is wrong with the address it listens on; other machines may come in only with a login."""
    port = int(url.rpartition(":")[2])
    wide = [a for a in bound(port) if a not in ("127.0.0.1", "::1")]
    if wide and not login:
        return f"port {port} is open to other machines ({', '.join(wide)}) without a login"
    return ""


def bound(port: int) -> list[str]:
    """The addresses of this machine on which somebody listens at a port."""
    found = []
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            address, _, number = fields[1].rpartition(":")
            if int(number, 16) == port and fields[3] == LISTENS:
                found.append(_address(address))
    return found


def _address(text: str) -> str:
    """The kernel's hex words (each of them little-endian) as an address."""
    import ipaddress

    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and headers of an answer; 0 without one."""
    headers |= {"content-type": "application/json"} if body else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as reply:
            return reply.status, reply.headers
    except urllib.error.HTTPError as e:
        return e.code, e.headers
    except OSError:
        return 0, {}


def _row(name: str, fault: str, value: str = "", cure: str = "iv down, then iv up") -> dict[str, Any]:
    return {"name": name, "ok": not fault, "value": fault or value, "cure": cure if fault else ""}
