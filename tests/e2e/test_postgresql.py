"""Both servers on a real PostgreSQL with a password: everything is recorded there, and the password stays unsaid."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.e2e.conftest import Servers, free_port

PASSWORD = "kept-to-ourselves"
BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
INGEST = ["ingest", "demo", *(f"--set=data.synthetic.{split}_clips=8" for split in ("train", "val", "test"))]


@pytest.fixture(scope="module")
def cluster():
    """Address of a database that is the user iv's own, on a server of this test's own."""
    pg_ctl = shutil.which("pg_ctl", path=f"{BIN}:{os.environ['PATH']}")
    if pg_ctl is None:
        pytest.skip("PostgreSQL is not installed")
    tools, port = Path(pg_ctl).resolve().parent, free_port()
    who = _not_root()
    folder = Path(tempfile.mkdtemp(prefix="iv-pg-"))
    (folder / "password").write_text(PASSWORD)
    for path in (folder, folder / "password"):
        os.chown(path, who.pw_uid, who.pw_gid)

    def run(tool, *args):
        command = [tools / tool, *map(str, args)]
        # pg_ctl's children keep what they inherit: no pipes
        with (folder / "log").open("ab") as log:
            done = subprocess.run(
                command, user=who.pw_uid, group=who.pw_gid, extra_groups=[], stdout=log, stderr=log, cwd=folder
            )
        assert done.returncode == 0, (folder / "log").read_text()

    data = folder / "data"
    try:
        auth = ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        run("initdb", "--no-sync", "--encoding=UTF8", "--username=iv", *auth, data)
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "-D", data, "-o", options)
        yield f"postgresql://iv:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [tools / "pg_ctl", "stop", "-m", "immediate", "-D", data],
            user=who.pw_uid,
            group=who.pw_gid,
            extra_groups=[],
            capture_output=True,
            cwd="/",
        )
        shutil.rmtree(folder, ignore_errors=True)


def _not_root():
    """Who PostgreSQL runs as: this user, and where that is root another one, since it refuses root."""
    if os.getuid():
        return pwd.getpwuid(os.getuid())
    return next(pwd.getpwnam(name) for name in ("postgres", "nobody") if name in {u.pw_name for u in pwd.getpwall()})


def test_both_servers_keep_everything_in_postgresql_and_the_password_to_themselves(cluster, tmp_path):
    psycopg2 = pytest.importorskip("psycopg2")
    mine = Servers(tmp_path / "ws", free_port(), free_port(), {"IV_DATABASE": cluster})
    try:
        said = mine.up()
        assert "postgresql://iv:***@127.0.0.1" in said
        ran = mine.iv(*INGEST)
        assert ran.returncode == 0, ran.stderr
        with psycopg2.connect(cluster) as connection, connection.cursor() as cursor:

            def count(what):
                cursor.execute(f"select count(*) from {what}")
                return cursor.fetchone()[0]

            assert count("prefect.flow_run where state_type = 'COMPLETED'") == 1
            assert count("prefect.task_run where state_type = 'COMPLETED'") == 1
            assert count("prefect.concurrency_limit_v2 where name = 'iv-gpu'") == 1
            assert count("mlflow.runs where status = 'FINISHED'") == 2  # the pipeline's and the step's
            assert count("information_schema.tables where table_schema = 'public'") == 0
        assert list(mine.home.rglob("*.db")) == []  # nothing went to SQLite
        written = [p for part in ("logs", "run") for p in (mine.home / part).rglob("*") if p.is_file()]
        assert not [p for p in written if PASSWORD in p.read_text(errors="replace")]
        commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
        assert not [c for c in commands if PASSWORD.encode() in c] and PASSWORD not in said + ran.stdout + ran.stderr
        mine.iv("down")
        mine.more = {}
        with pytest.raises(AssertionError, match=r"had their data in postgresql://iv:\*\*\*@.*not in sqlite"):
            mine.up()  # the runs would be gone from sight
    finally:
        mine.iv("down")


def test_an_address_that_does_not_let_us_in_is_told_without_its_password(cluster, tmp_path):
    wrong = cluster.replace(PASSWORD, "wrong-word")
    mine = Servers(tmp_path / "ws", free_port(), free_port(), {"IV_DATABASE": wrong})
    with pytest.raises(AssertionError, match="password authentication failed") as failed:
        mine.up()
    assert "wrong-word" not in str(failed.value)
