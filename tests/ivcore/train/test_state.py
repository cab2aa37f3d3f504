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


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_no_flipped_bit_of_a_state_is_gone_on_from(file, tmp_path, caplog):
    states = States(tmp_path, keep=2)
    for step in (1, 2):
        states.save(step, {"x": torch.full((3,), float(step))}, {"step": step, "loss_mean": 0.123})
    states.close()
    place = tmp_path / "step-000002" / file
    data = bytearray(place.read_bytes())
    data[-1 if file.startswith("tensors") else data.index(b"0.123") + 3] ^= 1
    place.write_bytes(data)
    tensors, figures = States(tmp_path, 2).latest()
    assert tensors["x"].tolist() == [1.0] * 3 and figures == {"step": 1, "loss_mean": 0.123}
    assert "step-000002 is damaged (it is not as it was written)" in caplog.text


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


def rows(*steps):
    return [{"step": step, "name": "loss", "value": step / 7} for step in steps]


def test_curves_are_added_to_and_each_state_has_its_own(tmp_path):
    states = States(tmp_path, keep=2)
    for step in (0, 1, 2, 3):
        states.save(step, {"x": torch.zeros(1)}, {"step": step}, rows(*range(step)))
        states.wait()
        assert States(tmp_path, keep=2).latest()[1] == {"step": step, "curves": rows(*range(step))}
    states.close()
    assert (tmp_path / "curves.jsonl").read_text().count("\n") == 3
    (tmp_path / "step-000003" / "state.json").write_text("{")  # the one before is gone on from
    again = States(tmp_path, keep=2)
    assert again.latest()[1] == {"step": 2, "curves": rows(0, 1)}
    again.save(3, {"x": torch.zeros(1)}, {"step": 3}, rows(0, 1, 9))
    again.close()
    assert States(tmp_path, 2).latest()[1]["curves"] == rows(0, 1, 9)


def test_only_new_rows_of_the_curves_are_written(tmp_path):
    class Once(list):
        def __getitem__(self, where):
            assert where.start == 1000 * (len(self) // 1000 - 1)
            return super().__getitem__(where)

    states = States(tmp_path, keep=1)
    for step in (1, 2, 3):
        states.save(step, {"x": torch.zeros(1)}, {"step": step}, Once(rows(*range(1000 * step))))
    states.close()
    assert (tmp_path / "step-000003" / "state.json").stat().st_size < 200
    assert len(States(tmp_path, 1).latest()[1]["curves"]) == 3000


def test_curves_that_are_cut_short_are_damage(tmp_path, caplog):
    states = States(tmp_path, keep=2)
    for step in (1, 2):
        states.save(step, {"x": torch.zeros(1)}, {"step": step}, rows(*range(step)))
    states.close()
    file = tmp_path / "curves.jsonl"
    file.write_bytes(file.read_bytes()[:-3])
    assert States(tmp_path, 2).latest()[1] == {"step": 1, "curves": rows(0)} and "step-000002 is damaged" in caplog.text


def test_a_state_of_an_earlier_version_is_gone_on_from(tmp_path):
    states = States(tmp_path, keep=1)
    states.save(1, {"x": torch.zeros(1)}, {"step": 1, "curves": rows(0)})
    states.close()
    again = States(tmp_path, keep=1)
    assert again.latest()[1]["curves"] == rows(0)
    again.save(2, {"x": torch.zeros(1)}, {"step": 2}, rows(0, 1))
    again.close()
    assert States(tmp_path, 1).latest()[1]["curves"] == rows(0, 1)
