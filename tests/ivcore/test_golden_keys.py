"""Recipes are those of earlier versions, so their workspaces are found; `tests/golden/keys.py` makes the file."""

import json

from ivcore.store.versions import VERSIONS
from tests.golden.keys import FILE, RECORDED, keys


def test_every_step_of_every_named_run_has_the_key_on_file(tmp_path, monkeypatch):
    for kind, version in RECORDED.items():  # a step whose bytes have changed has another key, by its version alone
        monkeypatch.setitem(VERSIONS, kind, version)
    golden = json.loads(FILE.read_text())
    found = keys(tmp_path)
    assert set(found) == set(golden) and sum(map(len, golden.values())) > 400
    for name, steps in golden.items():
        assert found[name] == steps, name
