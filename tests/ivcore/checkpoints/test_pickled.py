"""State dicts as people keep them: in containers, behind wrappers, beside settings; code is refused still."""

import argparse
import sys
import types

import pytest
import torch
from safetensors.torch import load_file

from ivcore.checkpoints import pickled
from ivcore.errors import UserError

STATE = {"vision_encoder.cls_token": torch.arange(6.0), "temp": torch.tensor(0.07)}


def converted(tmp_path, saved):
    torch.save(saved, tmp_path / "in.pth")
    said = pickled.convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    return load_file(tmp_path / "out.safetensors"), said["beside"]


def named(prefix):
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("saved", "beside"),
    [
        ({"model_state_dict": STATE, "epoch": 3}, ["epoch"]),
        ({"ema": STATE, "step": 1}, ["step"]),
        ({"state_dict": {"model": STATE, "extra": 1}, "epoch": 3}, ["epoch", "extra"]),
        ({"model": named("_orig_mod.")}, ["(before every name: _orig_mod.)"]),
        ({"model": named("module.")}, ["(before every name: module.)"]),
        (named("module._orig_mod."), ["(before every name: module.)", "(before every name: _orig_mod.)"]),
        ({"state_dict": named("model.")}, ["(before every name: model.)"]),
        ({"model": STATE, "args": argparse.Namespace(lr=1.0, names=["a"])}, ["args"]),
        ({"model": STATE, "args": types.SimpleNamespace(lr=1.0)}, ["args"]),
    ],
)
def test_containers_wrappers_and_settings_are_taken_off_and_said(saved, beside, tmp_path):
    found, said = converted(tmp_path, saved)
    assert said == beside and found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_upstreams_own_state_with_an_easydict_beside_it(tmp_path, monkeypatch):
    class EasyDict(dict):
        """As the package has it: entries are attributes, too."""

        def __init__(self, **entries):
            super().__init__(**entries)
            self.__dict__.update(entries)

    module = types.ModuleType("easydict")
    module.EasyDict, EasyDict.__qualname__ = EasyDict, "EasyDict"
    module.EasyDict.__module__ = "easydict"
    monkeypatch.setitem(sys.modules, "easydict", module)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter])
    config = module.EasyDict(seed=42, model=module.EasyDict(name="x"))
    saved = {
        "model": STATE,
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 1.0},
        "config": config,
        "epoch": 0,
    }
    found, said = converted(tmp_path, saved)
    assert said == ["config", "epoch", "optimizer", "scaler"] and found.keys() == STATE.keys()


def test_a_name_that_only_some_carry_is_no_wrapper(tmp_path):
    found, said = converted(tmp_path, {"module.a": torch.zeros(1), "b": torch.zeros(1)})
    assert said == [] and set(found) == {"module.a", "b"}


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_code_beside_the_weights_is_refused(tmp_path):
    torch.save({"model": STATE, "args": Evil()}, tmp_path / "in.pth")
    with pytest.raises(UserError, match=r"calls builtins\.print|print"):
        pickled.convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_pickle_that_holds_itself_ends(tmp_path):
    saved = {"epoch": 1}
    saved["model"] = saved
    torch.save(saved, tmp_path / "in.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        pickled.convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
