"""Workspaces of earlier versions are found again; `tests/golden/keys.py` makes the file."""

import json

from tests.golden.keys import FILE, keys


def test_every_step_of_every_named_run_has_the_key_on_file(tmp_path):
    golden = json.loads(FILE.read_text())
    found = keys(tmp_path)
    assert set(found) == set(golden) and sum(map(len, golden.values())) > 400
    for name, steps in golden.items():
        assert found[name] == steps, name
