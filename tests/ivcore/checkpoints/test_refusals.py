"""What is not imported: one line that names file, key and cure, exit 2, and nothing written."""

import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from flows.cli import main
from ivcore.checkpoints import pickled
from ivcore.checkpoints.exporting import export
from ivcore.errors import UserError
from ivcore.models import build_clip, build_s2

HEAD = "itm_head.bias"
TABLE = "vision_encoder.pos_embed"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: value.clone() for name, value in build_s2("tiny", 50, seed=1).state_dict().items()}


def refused(tmp_path: Path, *args: str | Path, model: str = "s2-tiny") -> str:
    """The one line that `iv import` ends with; the folder is as it was before."""
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(main, ["import", *map(str, args), "--model", model, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and done.stdout == "", done.output
    assert done.stderr.count("\n") == 1 and sorted(tmp_path.rglob("*")) == before
    return done.stderr


def renamed(state: dict[str, Tensor]) -> None:
    state["itm_head.bais"] = state.pop(HEAD)


def without(state: dict[str, Tensor]) -> None:
    del state[HEAD]


def extra(state: dict[str, Tensor]) -> None:
    state["vision_encoder.head.weight"] = torch.zeros(2)


def shorter(state: dict[str, Tensor]) -> None:
    state[HEAD] = torch.zeros(3)


def not_a_number(state: dict[str, Tensor]) -> None:
    state[HEAD] = torch.tensor([0.0, float("nan")])


def infinite(state: dict[str, Tensor]) -> None:
    state[TABLE][0, 3, 1] = float("-inf")


def untied(state: dict[str, Tensor]) -> None:
    state["text_encoder.cls.predictions.decoder.weight"] += 1


def cut_table(state: dict[str, Tensor]) -> None:
    state[TABLE] = state[TABLE][:, :-3].contiguous()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (renamed, ["1 missing: itm_head.bias", "1 unexpected in w.safetensors: itm_head.bais"]),
        (without, ["1 missing: itm_head.bias"]),
        (extra, ["1 unexpected in w.safetensors: vision_encoder.head.weight"]),
        (shorter, [f"{HEAD} (shape [3], the model has [2])"]),
        (not_a_number, [f"{HEAD} holds NaN"]),
        (infinite, [f"{TABLE} holds NaN or infinity"]),
        (untied, ["text_encoder.cls.predictions.decoder.weight", "one tensor in the model but differ"]),
        (cut_table, ["position table of shape [1, 62, 96]"]),
    ],
)
def test_one_wrong_entry(
    state: dict[str, Tensor], tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], says: list[str]
) -> None:
    state = {name: value.clone() for name, value in state.items()}
    spoil(state)
    save_file(state, tmp_path / "w.safetensors")
    line = refused(tmp_path, tmp_path / "w.safetensors")
    assert all(part in line for part in [*says, "w.safetensors"]), line


def test_a_dry_run_lists_every_key_and_ends_alike(state: dict[str, Tensor], tmp_path: Path) -> None:
    state = dict(state)
    renamed(state)
    save_file(state, tmp_path / "w.safetensors")
    command = ["import", str(tmp_path / "w.safetensors"), "--model", "s2-tiny", "--dry-run"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["missing", "(no", "file)", HEAD] in rows and ["unexpected", "w.safetensors", "itm_head.bais"] in rows
    record = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert record["counts"]["w.safetensors"]["unexpected"] == record["counts"][""]["missing"] == 1
    assert {p.name for p in tmp_path.iterdir()} == {"w.safetensors"}


def test_a_dry_run_looks_at_the_numbers_too(state: dict[str, Tensor], tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in state.items()}
    not_a_number(state)
    save_file(state, tmp_path / "w.safetensors")
    done = CliRunner().invoke(main, ["import", str(tmp_path / "w.safetensors"), "--model", "s2-tiny", "--dry-run"])
    assert done.exit_code == 2 and f"{HEAD} holds NaN" in done.stderr


def test_another_size_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors")
    line = refused(tmp_path, tmp_path / "w.safetensors", model="s2-B14")
    assert "96 wide" in line and "s2-B14 is 768 wide with 12; give --model s2-tiny" in line


def test_files_that_do_not_make_a_model(tmp_path: Path, state: dict[str, Tensor]) -> None:
    clip = build_clip("tiny", 60, seed=0).state_dict()
    files = {
        "s2": state,
        "clip": {n: t.clone() for n, t in clip.items()},
        "delta": {n: t.clone() for n, t in clip.items() if "clip_projector" in n or n == "temp"},
        "text": {n.removeprefix("text_encoder."): t.clone() for n, t in clip.items() if "text_encoder" in n},
        "other": {"model.embed.weight": torch.zeros(2)},
    }
    for name, part in files.items():
        save_file(part, tmp_path / f"{name}.safetensors")
    s2, whole, delta, text, other = (tmp_path / f"{name}.safetensors" for name in files)
    for given, model, says in [
        ([delta], "clip-tiny", "also needs a file of role clip or s2 or tower"),
        ([s2, delta], "clip-tiny", "also needs a file of role clip or llama"),
        ([delta], "s2-tiny", "is a delta of clip; give --model clip-tiny"),
        ([whole], "s2-tiny", "is a clip file; s2-tiny is made of s2"),
        ([s2, whole, text], "clip-tiny", "are of role clip or s2 or tower; give one of them"),
        ([s2, text], "clip-S14", "is a llama file; clip-S14 is made of"),
        ([other], "s2-tiny", "its names begin with model.embed.weight"),
        ([s2, s2], "s2-tiny", "is given twice"),
        ([tmp_path / "absent.pt"], "s2-tiny", "absent.pt is not there"),
        ([tmp_path], "s2-tiny", "holds neither model.safetensors"),
        ([s2], "s2-huge", "no form and size; known: s2-1B"),
    ]:
        assert says in refused(tmp_path, *given, model=model)
    (tmp_path / "notes.txt").write_text("")
    assert "weights are .safetensors, .pth, .pt, .bin" in refused(tmp_path, tmp_path / "notes.txt")
    done = CliRunner().invoke(main, ["import", str(s2), "--model", "s2-tiny"])
    assert done.exit_code == 2 and "--out FOLDER or --dry-run" in done.stderr


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short(tmp_path: Path, state: dict[str, Tensor], name: str, share: float) -> None:
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    line = refused(tmp_path, path)
    assert f"{name} is cut short" in line and "fetch it again" in line


def test_shards(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    index = tmp_path / "m.safetensors.index.json"
    for weight_map, says in [
        ({HEAD: "a.safetensors", "temp": "b.safetensors"}, "b.safetensors is missing, one of 2 shards"),
        ({HEAD: "../a.safetensors"}, "outside its folder"),
        ({"absent": "a.safetensors"}, "absent is not in a.safetensors, where the index has it"),
    ]:
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert says in refused(tmp_path, index)
    index.write_text("[]")
    assert "no index of shards" in refused(tmp_path, index)
    save_file(state, tmp_path / "b.safetensors")
    index.write_text(json.dumps({"weight_map": {HEAD: "a.safetensors", "temp": "b.safetensors"}}))
    assert "is in more than one shard" in refused(tmp_path, index)


# pickles


class Call:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("wrapping", ["zip", "old", "bare pickle"])
def test_a_pickle_that_writes_a_file_is_refused_and_the_file_does_not_appear(tmp_path: Path, wrapping: str) -> None:
    mark = tmp_path / "mark"
    content = {"module": {"a": torch.zeros(1), "b": Call(os.system, f"touch {mark}")}}
    path = tmp_path / "w.pt"
    if wrapping == "bare pickle":
        path.write_bytes(pickle.dumps(Call(os.system, f"touch {mark}")))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=wrapping == "zip")
    line = refused(tmp_path, path)
    assert "w.pt: the pickle calls posix.system" in line and "safetensors" in line
    assert not mark.exists()


@pytest.mark.parametrize("thing", [Path("/"), pickle.Unpickler, Call(eval, "1")])
def test_what_else_a_pickle_holds_is_refused_by_name(tmp_path: Path, thing: object) -> None:
    torch.save({"a": torch.zeros(1), "b": thing}, tmp_path / "w.bin")
    line = refused(tmp_path, tmp_path / "w.bin")
    assert "the pickle calls" in line
    assert any(name in line for name in ("pathlib", "_pickle.Unpickler", "pickle.Unpickler", "eval")), line


def test_tensors_that_are_not_what_they_claim(tmp_path: Path) -> None:
    for value, says in [
        (torch.zeros(1).expand(10**6, 10**6), "claims more bytes than the file has"),
        (torch.zeros(2, dtype=torch.complex64), "complex64; no model here is stored so"),
        (torch.eye(2).to_sparse(), "sparse"),
    ]:
        torch.save({"module": {"big": value}}, tmp_path / "w.pt")
        line = refused(tmp_path, tmp_path / "w.pt")
        assert "w.pt: big" in line and says in line
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    assert "holds no state dict, neither bare nor under module" in refused(tmp_path, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as z:
        z.writestr("archive/data.pkl", b"\x80")
    assert "cut short" in refused(tmp_path, tmp_path / "z.pt")


def test_the_reader_may_neither_talk_nor_write_nor_start_programs(tmp_path: Path) -> None:
    """The second guard by itself: what a pickle would meet that got past the first."""
    import subprocess

    (tmp_path / "w.pt").write_bytes(b"0")
    script = """
import socket, subprocess, sys, os
from pathlib import Path
from ivcore.checkpoints.pickled import guard
folder = Path(sys.argv[1])
guard(folder / "w.pt", folder / "out")
held = []
for name, act in {
    "socket": lambda: socket.socket(),
    "lookup": lambda: socket.getaddrinfo("localhost", 80),
    "program": lambda: subprocess.run(["true"]),
    "shell": lambda: os.system("true"),
    "fork": os.fork,
    "write": lambda: (folder / "mark").write_text("x"),
    "append": lambda: open(folder / "w.pt", "a"),
    "remove": (folder / "w.pt").unlink,
}.items():
    try:
        act()
    except PermissionError:
        held.append(name)
(folder / "out").write_text("fine")
print(*held)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["socket", "lookup", "program", "shell", "fork", "write", "append", "remove"]
    assert {p.name for p in tmp_path.iterdir()} == {"w.pt", "out"}


def test_a_reader_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "die").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "die").chmod(0o755)
    monkeypatch.setattr(pickled.sys, "executable", str(tmp_path / "die"))
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"w\.pt: the process that read it ended with signal 9"):
        pickled.convert(tmp_path / "w.pt", tmp_path / "out")


# export


def test_export_refuses(tmp_path: Path) -> None:
    build_s2("tiny", 50, seed=1).save_pretrained(tmp_path / "m")
    (tmp_path / "there.safetensors").write_text("")
    (tmp_path / "empty").mkdir()
    for folder, out, says in [
        ("m", "x.bin", "the file ends in .safetensors"),
        ("m", "there.safetensors", "is there already"),
        ("m", "no/x.safetensors", "there is no folder"),
        ("empty", "x.safetensors", "is no model folder"),
    ]:
        done = CliRunner().invoke(main, ["export", str(tmp_path / folder), "--out", str(tmp_path / out)])
        assert done.exit_code == 2 and says in done.stderr and done.stderr.count("\n") == 1
    with pytest.raises(UserError, match=r"\.pth"):
        export(tmp_path / "m", tmp_path / "x.safetensors", pth=True)
    done = CliRunner().invoke(
        main, ["export", str(tmp_path / "m"), "--out", str(tmp_path / "x.pth"), "--pth", "--json"]
    )
    found = json.loads(done.stdout)
    assert found["entries"] == len(torch.load(tmp_path / "x.pth", weights_only=True))
    assert load_file(tmp_path / "m/model.safetensors").keys() < torch.load(tmp_path / "x.pth", weights_only=True).keys()
