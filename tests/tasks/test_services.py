"""What needs no server: ports, environments, what is safe, which processes are ours."""

import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest

from ivcore.errors import UserError
from tasks import database, runtime, safety, services


@pytest.fixture
def taken():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield s.getsockname()[1]


def test_a_taken_port_is_named_with_its_cure_before_anything_starts(tmp_path, taken):
    with pytest.raises(UserError, match=f"port {taken} of prefect is taken.*--prefect-port {taken + 1}"):
        services.up(services.Plan(tmp_path, prefect_port=taken))
    assert runtime.running(tmp_path) == {}


def test_only_our_own_pages_may_call_and_the_users_settings_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:secret")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", runtime.QUIET["PREFECT_LOGGING_LEVEL"])  # as prepare leaves it
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "7")
    env = services.environment(services.Plan(tmp_path, prefect_port=4321))
    assert env["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4321,http://localhost:4321"
    assert env["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert env["PREFECT_API_AUTH_STRING"] == "me:secret" and env["PREFECT_WORKER_QUERY_SECONDS"] == "7"
    assert env["PREFECT_LOGGING_LEVEL"] == "INFO" and env["IV_HOME"] == str(tmp_path)


def test_a_process_is_known_by_when_it_began(tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={"IV_UP": str(tmp_path)})
    try:
        began = runtime.began(sleeper.pid)
        entries = {"worker": {"pid": sleeper.pid, "began": began}, "mlflow": {"pid": sleeper.pid, "began": began - 1}}
        (tmp_path / "run").mkdir()
        services._note(tmp_path, entries)
        assert list(runtime.running(tmp_path)) == ["worker"]
        services.down(tmp_path)
        assert runtime.running(tmp_path) == {} and sleeper.wait() != 0
    finally:
        sleeper.kill()
        sleeper.communicate()
    assert runtime.began(sleeper.pid) is None


def test_down_finds_what_lost_its_parent(tmp_path):
    sleep = (
        "[sys.executable, '-c', 'import time; time.sleep(60)'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    )
    code = f"import subprocess, sys; print(subprocess.Popen({sleep}).pid)"
    env = {**os.environ, services.MARK: str(tmp_path)}
    orphan = int(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout)
    assert services.marked(tmp_path) == [orphan]
    services.down(tmp_path)
    assert runtime.began(orphan) is None and services.marked(tmp_path) == []


class Careless(http.server.BaseHTTPRequestHandler):
    """A server as Prefect is unless told otherwise."""

    origin, unsafe = "*", 200

    def do_GET(self):
        self.send_response(200)
        self.send_header("access-control-allow-origin", self.origin)
        self.end_headers()

    def do_POST(self):
        self.send_response(self.unsafe)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(
    "address, origin, status, says",
    [
        ("127.0.0.1", "*", 403, "every web page"),
        ("127.0.0.1", "http://127.0.0.1:1", 200, "without a CSRF token"),
        ("0.0.0.0", "http://127.0.0.1:1", 403, r"open to other machines \(0.0.0.0\) without a login"),
        ("0.0.0.0", "http://127.0.0.1:1", 401, None),
        ("127.0.0.1", "http://127.0.0.1:1", 403, None),
    ],
)
def test_doctor_sees_an_unsafe_server(tmp_path, address, origin, status, says):
    handler = type("Handler", (Careless,), {"origin": origin, "unsafe": status})
    server = http.server.ThreadingHTTPServer((address, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        (tmp_path / "run").mkdir()
        url = f"http://127.0.0.1:{server.server_port}"
        services._note(tmp_path, {"prefect": {"pid": os.getpid(), "began": runtime.began(os.getpid()), "url": url}})
        rows = {row["name"]: row for row in safety.servers(tmp_path)}
    finally:
        server.shutdown()
        server.server_close()
    assert rows["prefect"]["ok"] == (says is None), rows
    if says:
        import re

        assert re.search(says, rows["prefect"]["value"])
    assert not rows["worker"]["ok"] and rows["worker"]["cure"] == "iv up"


@pytest.mark.parametrize("address", ["mysql://me@here/x", "postgresql://here", "sqlite:///x.db", "nonsense"])
def test_only_a_postgresql_database_is_taken(address):
    with pytest.raises(UserError, match="postgresql://user@host:5432/name"):
        database.parsed(address)


def test_the_databases_address_reaches_the_servers_alone(tmp_path, monkeypatch):
    address = "postgresql://me:p%40ss@there:5433/iv?sslmode=require"
    monkeypatch.setenv(database.SETTING, address)
    found = database.environment(address)
    assert found[database.PREFECT] == "postgresql+asyncpg://me:p%40ss@there:5433/iv?ssl=require"
    assert found[database.MLFLOW] == (
        "postgresql+psycopg2://me:p%40ss@there:5433/iv?options=-csearch_path%3Dmlflow&sslmode=require"
    )
    plan = services.Plan(tmp_path, database=address)
    assert not [v for v in services.environment(plan).values() if "p%40ss" in v] and "ss@" not in repr(plan)
    assert "--backend-store-uri" not in services._command("mlflow", plan)
    assert "***" in services.shown_database(plan) and "SQLite" in services.shown_database(services.Plan(tmp_path))


def test_doctor_sees_a_taken_port_before_up_does(tmp_path, taken, monkeypatch):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
    monkeypatch.setenv("IV_PREFECT_PORT", str(taken))
    monkeypatch.setenv("IV_MLFLOW_PORT", str(free))
    rows = {row["name"]: row for row in safety.servers(tmp_path)}
    assert not rows[f"port {taken}"]["ok"] and f"IV_PREFECT_PORT={taken + 1}" in rows[f"port {taken}"]["cure"]
    assert rows[f"port {free}"]["ok"]


def test_doctor_sees_a_workspace_that_others_may_write(tmp_path):
    (tmp_path / "artifacts").mkdir(mode=0o755)
    assert [row["ok"] for row in safety.permissions(tmp_path)] == [True]
    (tmp_path / "artifacts").chmod(0o777)
    (row,) = safety.permissions(tmp_path)
    assert not row["ok"] and str(tmp_path / "artifacts") in row["cure"]
