"""`iv init`: captions.csv with a row for each video, which is then read as it is."""

import csv
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from flows.cli import main
from ivcore.config import DataConfig
from ivcore.datasets.sets import folder
from ivcore.datasets.shapes.drawing import encode

NAMES = [
    "a.mp4",
    "b, with a comma.mp4",
    'say "c".mp4',
    "sub/d.MKV",
    "two\nlines.mp4",
    " blank.mp4",
    "'e'.mp4",
    "f;g|h\t.mov",
]


@pytest.fixture()
def videos(tmp_path):
    (tmp_path / "sub").mkdir()
    encode(tmp_path / "a.mp4", np.zeros((6, 32, 32, 3), np.uint8), 5)
    for name in NAMES[1:]:
        os.link(tmp_path / "a.mp4", tmp_path / name)
    return tmp_path


def _init(folder_, *words):
    return CliRunner().invoke(main, ["init", str(folder_), *words])


def test_the_template_names_every_video_and_is_read_as_it_is(videos):
    done = _init(videos, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["videos"] == len(NAMES)
    clips, captions = folder.rows(DataConfig(dataset="folder", root=str(videos)), videos)
    assert sorted(c["path"] for c in clips) == sorted(NAMES) and captions == []
    with (videos / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (videos / "captions.csv").open("w", newline="") as file:  # filled in
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "caption": f"caption, of {row['path']}"} for row in rows)
    _, captions = folder.rows(DataConfig(dataset="folder", root=str(videos)), videos)
    assert {c["caption"] for c in captions} == {f"caption, of {name}" for name in NAMES}


def test_what_is_there_is_not_written_over(videos):
    (videos / "captions.csv").write_text("path,caption\na.mp4,mine\n")
    done = _init(videos)
    assert done.exit_code == 2 and "captions.csv is there already" in done.stderr
    assert (videos / "captions.csv").read_text() == "path,caption\na.mp4,mine\n"


def test_a_name_that_no_table_holds_is_said(videos):
    os.link(os.fsencode(videos / "a.mp4"), os.fsencode(videos) + b"/caf\xe9.mp4")
    done = _init(videos)
    assert done.exit_code == 0 and "caf\\xe9.mp4 is not UTF-8; rename the file" in done.stdout


@pytest.mark.parametrize("name, said", [("none", "is no folder"), ("sub2", "holds no video")])
def test_a_folder_without_videos_is_refused(tmp_path, name, said):
    (tmp_path / "sub2").mkdir()
    done = _init(tmp_path / name)
    assert done.exit_code == 2 and said in done.stderr and not list(tmp_path.rglob("captions.csv"))


def test_a_folder_without_captions_is_said_at_once_where_they_are_needed(videos):
    for step in ("run", "fit-s2", "score"):
        done = CliRunner().invoke(main, [step, "mine", "--set", f"data.root={videos}"])
        assert done.exit_code == 2 and f"`iv init {videos}` writes one" in done.stderr
