"""States on disk: the newest are kept, a torn one is not seen, and what is saved is what was there."""

import json

import pytest
import torch

from ivcore.train import state
from ivcore.train.state import States


def test_the_newest_states_are_kept_and_a_torn_one_is_not_seen(tmp_path):
    states = States(tmp_path, keep=2)
    for step in (1, 2, 10):
        states.save(step, {"x": torch.full((3,), float(step))}, {"step": step})
    states.close()
    (tmp_path / ".step-000011.1.tmp").mkdir()
    (tmp_path / "step-000012").mkdir()
    assert sorted(p.name for p in tmp_path.glob("step-*") if list(p.iterdir())) == ["step-000002", "step-000010"]
    tensors, figures = States(tmp_path, 2).latest()
    assert tensors["x"].tolist() == [10.0] * 3 and figures == {"step": 10}


def test_a_state_of_another_schema_is_passed_over(tmp_path):
    states = States(tmp_path, keep=2)
    states.save(3, {"x": torch.zeros(1)}, {"step": 3})
    states.close()
    file = tmp_path / "step-000003" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 0}))
    assert States(tmp_path, 2).latest() is None


def test_what_is_saved_is_what_was_there_before_the_next_update(tmp_path):
    states, live = States(tmp_path, 1), torch.zeros(2_000_000)
    states.save(1, {"x": live}, {})
    states.wait_copied()
    live += 1
    states.close()
    assert not States(tmp_path, 1).latest()[0]["x"].any()


def test_states_are_kept_by_number_beyond_a_million_steps(tmp_path):
    states = States(tmp_path, keep=1)
    for step in (999_999, 1_000_000):
        states.save(step, {"x": torch.full((1,), float(step))}, {"step": step})
    states.close()
    assert [p.name for p in tmp_path.iterdir()] == ["step-1000000"]
    assert States(tmp_path, 1).latest()[1] == {"step": 1_000_000}


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_a_damaged_state_is_said_and_the_one_before_it_taken(file, tmp_path, caplog):
    states = States(tmp_path, keep=2)
    for step in (1, 2):
        states.save(step, {"x": torch.full((3,), float(step))}, {"step": step})
    states.close()
    place = tmp_path / "step-000002" / file
    place.write_bytes(place.read_bytes()[:7])
    tensors, figures = States(tmp_path, 2).latest()
    assert tensors["x"].tolist() == [1.0] * 3 and figures == {"step": 1}
    assert "step-000002 is damaged" in caplog.text


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    states = States(tmp_path, keep=2)
    monkeypatch.setattr(state, "write_safetensors", full)
    states.save(1, {"x": torch.zeros(3)}, {"step": 1})
    with pytest.raises(OSError, match="No space left"):
        states.wait()
    states.close()
    assert list(tmp_path.iterdir()) == []
