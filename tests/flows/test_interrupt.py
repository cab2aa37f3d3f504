"""A command that is stopped from its terminal or by SIGTERM, while it decodes, trains and scores."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from tests import kill
from tests.flows.test_kill_flow import command

STOPS = [("frame_shard", signal.SIGINT), ("s2", signal.SIGTERM), ("clip", signal.SIGINT), ("scores", signal.SIGHUP)]


def stopped(home, kind, number):
    """(status, lines, processes left) of the command; it and its group get the signal once that kind is begun."""
    process = kill.start(command(home, "score"))
    try:
        while not any((home / "artifacts" / kind).glob(".*.tmp")):
            assert process.poll() is None, process.communicate()[1].decode()[-2000:]
            time.sleep(0.005)
        os.killpg(process.pid, number)
        words = process.communicate(timeout=60)[1].decode().splitlines()
        return process.returncode, words, left_of(process.pid)
    finally:
        kill.end_group(process)


def left_of(group):
    """Processes of the group that still run; a dead one whose parent has not looked yet does not."""
    found = []
    for process in psutil.process_iter(["pid", "status", "cmdline"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info)
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return kill.unbroken_run(lambda home: command(home, "score"), tmp_path_factory.mktemp("scored"))[0]


def test_ctrl_c_leaves_a_line_and_no_process(tmp_path):
    status, words, left = stopped(tmp_path / "ws", "s2", signal.SIGINT)
    assert status == 130 and words[-1].startswith("iv: stopped by Ctrl-C") and not left, (words, left)
    assert "Traceback" not in "".join(words)


@pytest.mark.chaos
def test_a_stopped_command_leaves_no_process_and_goes_on_to_the_same_bytes(unbroken, tmp_path):
    for kind, number in STOPS:
        status, words, left = stopped(tmp_path / "ws", kind, number)
        line = words[-1]
        assert status == 128 + number and line.startswith("iv: stopped by ") and not left, (kind, words, left)
    kill.finish(command(tmp_path / "ws", "score"))
    assert kill.hashes(tmp_path / "ws") == kill.hashes(unbroken)
