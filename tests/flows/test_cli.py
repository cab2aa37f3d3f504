import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows import command
from flows.cli import main

ROOT = Path(__file__).parents[2]


def _iv(*args, **env):
    command = [sys.executable, "-m", "flows.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env}, timeout=120)


def test_every_command_has_help_with_an_example_and_json():
    assert {"demo", "run", "ingest", "decode", "featurize", "fit-s2", "fit-clip", "score", "report"} <= set(
        main.commands
    )
    assert {"sql", "doctor", "parity", "import", "export"} <= set(main.commands)
    for name in main.commands:
        out = CliRunner().invoke(main, [name, "--help"]).output
        assert f"Example:  iv {name}" in out and "--json" in out and "--debug" in out and "--home" in out


@pytest.mark.parametrize(
    "args, says",
    [
        (["run", "nope"], "no run is named 'nope'"),
        (["run", "demo", "--set", "train.clip.lrr=1"], "train.clip.lrr = 1: no such field"),
        (["decode", "demo", "--set", "frames.num_frames=0"], "frames.num_frames = 0"),
        (["run", "demo", "--seeds", "a"], "--seeds 'a' is no list"),
        (["search", ""], "SENTENCE '' has no word"),
        (["search", " ?! "], "has no word"),
        (["run", "mine", "--set", "data.root=/nowhere"], "data.root = '/nowhere' is no folder"),
        (
            ["run", "mine", "--set", "data.root=/", "--set", "data.annotations=/no.csv"],
            "data.annotations = '/no.csv' is not",
        ),
        (["grid", "mine", "--set", 'grid.data=[{name="a", root="/nowhere"}]'], "data.root = '/nowhere' is no folder"),
    ],
)
def test_the_callers_mistake_is_one_line_and_2(args, says, tmp_path):
    done = CliRunner().invoke(main, [*args, "--home", str(tmp_path / "ws")])
    assert done.exit_code == 2 and done.stdout == ""
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "ws").exists()  # found before anything is made


def test_a_workspace_in_the_way_of_a_file_is_one_line_and_1(tmp_path):
    (tmp_path / "ws").write_text("")
    done = _iv("ingest", "demo", "--json", IV_HOME=str(tmp_path / "ws"))
    assert done.returncode == 1 and done.stdout == ""
    assert "in the way of a file" in done.stderr and done.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line_and_1(tmp_path):
    env = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = _iv("ingest", "demo", "--json", "--home", str(tmp_path / "ws"), **env)
    assert done.returncode == 1 and done.stdout == "", done.stderr
    assert "no Prefect server answers there; start it, or unset" in done.stderr and "Traceback" not in done.stderr


def test_other_peoples_characters_have_no_power_over_the_terminal(tmp_path):
    (tmp_path / "artifacts").mkdir()
    evil = "'a\x1b[2Jb\x9bc\rd\te\nf\u202eg' || chr(8232) || 'z'"
    done = CliRunner().invoke(
        main, ["sql", f"select {evil} as clip_id, 2 as n, 'añ中👩‍🍳' as kept", "--home", str(tmp_path)]
    )
    assert done.stdout.split("\n")[1] == "a\\x1b[2Jb\\x9bc\\rd\\te\\nf\\u202eg\\u2028z\t2\tañ中👩‍🍳"
    done = CliRunner().invoke(main, ["sql", "select \x1b[2J", "--home", str(tmp_path)])
    assert done.exit_code == 2 and "\x1b" not in done.output
    said = logging.LogRecord("iv", logging.INFO, "", 0, "clip %s", ("a\x1b[2Jb",), None)
    assert command._Plain("%(message)s").format(said) == "clip a\\x1b[2Jb"


def test_sql(tmp_path):
    (tmp_path / "artifacts").mkdir()
    done = CliRunner().invoke(main, ["sql", "select 1 as one", "--json", "--home", str(tmp_path)])
    assert json.loads(done.stdout) == {"columns": ["one"], "rows": [[1]]}
    listed = CliRunner().invoke(main, ["sql", "--home", str(tmp_path)]).stdout
    assert "manifest   key, clip_id, path" in listed and "Seconds of each stage:" in listed
    assert CliRunner().invoke(main, ["sql", "drop table records", "--home", str(tmp_path)]).exit_code == 2


def test_weights_out_and_in_again(tmp_path):
    from ivcore.models import build_s2

    build_s2("tiny", 50, seed=0).save_pretrained(tmp_path / "a")
    out = CliRunner().invoke(main, ["export", str(tmp_path / "a"), "--out", str(tmp_path / "a.safetensors")])
    assert out.exit_code == 0 and "exported 160 entries" in out.stdout
    command = ["import", str(tmp_path / "a.safetensors"), "--model", "s2-tiny"]
    seen = CliRunner().invoke(main, [*command, "--dry-run"])
    assert seen.exit_code == 0 and "loaded      a.safetensors  itm_head.bias" in seen.stdout
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "b")])
    assert done.exit_code == 0 and "imported s2-tiny into" in done.stdout
    again = json.loads(CliRunner().invoke(main, [*command, "--out", str(tmp_path / "b"), "--json"]).stdout)
    assert again["counts"]["a.safetensors"] == {
        "loaded": 158,
        "converted": 0,
        "ignored": 2,
        "missing": 0,
        "unexpected": 0,
    }
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
