"""Torch's pickle files, read in a process of their own: tensors come out as safetensors, anything else is refused.

    python -m ivcore.checkpoints.pickled FILE OUT.safetensors

What guards the reader, outermost last:

1. `torch.load(weights_only=True)`: an unpickler that knows tensors and plain data and calls nothing else. This is the
   guard that a malicious file meets.
2. An audit hook, set before the file is opened: from then on Python code in this process cannot open a socket, start a
   program, or open any file but OUT for writing. It sees what goes through Python; machine code that got past guard 1
   would not be held by it. It is no sandbox of the operating system.
3. Limits on memory and on the size of a written file, in proportion to FILE; and the process ends after one file.
"""

import collections
import json
import os
import pickle
import pickletools
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ivcore
from ivcore.checkpoints import weights
from ivcore.errors import UserError

# What a state dict lies in, one in another or bare: DeepSpeed's states, plain checkpoints, Lightning's, averages.
CONTAINERS = ("module", "model", "state_dict", "model_state_dict", "ema", "model_ema", "state_dict_ema")
NESTED = 4  # containers in one another, at most
WRAPPERS = ("_orig_mod.", "module.", "model.")  # before every name: torch.compile's, DDP's, Lightning's
# Settings that people keep beside weights: read as dictionaries, whatever the class of that name would do.
SETTINGS = ("argparse.Namespace", "types.SimpleNamespace", "easydict.EasyDict", "addict.addict.Dict")
FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "shutil.",
    "ctypes.",
    "pty.",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def convert(path: Path, out: Path) -> dict[str, Any]:
    """Write the tensors of a torch file as safetensors, in another process.

    Returns:
        `plain`: entries of the state dict that are no tensors, name -> type; `beside`: what lay next to the state dict.

    Raises:
        UserError: in one line naming the file, if it holds anything but plain data and tensors, or cannot be read.
    """
    command = [sys.executable, "-P", "-m", "ivcore.checkpoints.pickled", str(path), str(out)]
    home = str(Path(ivcore.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": home, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise UserError(f"{path}: the process that read it ended with {how}; the file is damaged or hostile") from None
    if "refused" in said:
        raise UserError(f"{path}{said['refused']}")
    return said


def guard(path: Path, out: Path) -> None:
    """Guards 2 and 3; they hold until the process ends."""
    size = path.stat().st_size
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 2 * size + 2**24),
        (resource.RLIMIT_AS, 4 * size + 2**35),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"it tried {event}")
        if event == "open" and isinstance(args[2], int) and args[2] & WRITES and str(args[0]) != str(out):
            raise PermissionError(f"it tried to write {args[0]}")

    sys.addaudithook(hook)


def unpack(found: Any) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """What was unpickled -> tensors, other entries of the state dict (name -> type), names beside the state dict.

    Raises:
        UserError: without a state dict, or for an entry whose name or tensor is of no kind that weights have.
    """
    beside: list[str] = []
    for _ in range(NESTED):  # a pickle may hold itself
        name = next((n for n in CONTAINERS if isinstance(found, dict) and isinstance(found.get(n), dict)), None)
        if name is None:
            break
        beside += sorted(str(other) for other in found if other != name)
        found = found[name]
    while isinstance(found, dict) and (prefix := _wrapper(found)):
        beside.append(f"(before every name: {prefix})")
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    tensors = {n: t for n, t in found.items() if isinstance(t, Tensor)} if isinstance(found, dict) else {}
    if not tensors:
        raise UserError(f" holds no state dict, neither bare nor under {', '.join(CONTAINERS)}")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise UserError(f": the entry {name!r} has no name")
        if tensor.layout != torch.strided or tensor.dtype not in weights.NAMES:
            raise UserError(f": {name} is {tensor.layout} {tensor.dtype}; no model here is stored so")
    return tensors, {str(n): type(v).__name__ for n, v in found.items() if n not in tensors}, beside


def _wrapper(found: dict[Any, Any]) -> str:
    """What stands before every name, if that is one of WRAPPERS."""
    names = [name for name in found if isinstance(name, str)]
    whole = names and len(names) == len(found)
    return next((prefix for prefix in WRAPPERS if whole and all(name.startswith(prefix) for name in names)), "")


def _load(path: Path) -> Any:
    torch.serialization.add_safe_globals([(collections.OrderedDict, name) for name in SETTINGS])
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # torch's format before 1.6
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).split())
        named = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"class [`'\"]?([\w.]+)", text)
        called = named[1] if named else _first_call(path)
        if called:
            raise UserError(
                f": the pickle calls {called}; only tensors and plain data are read. Do not open this file with "
                "anything else; get the weights as safetensors from someone you trust"
            ) from None
        reason = text.rpartition("WeightsUnpickler error: ")[2][:120]
        raise UserError(f" is cut short, or is no torch file of plain tensors ({reason}); fetch it again") from None
    except PermissionError as error:
        raise UserError(f": {error}; do not open this file with anything else") from None
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
        raise UserError(f" is cut short or no torch file ({reason}); fetch it again") from None


def _first_call(path: Path) -> str | None:
    """What a pickle outside of torch's formats would import first; read from its opcodes, nothing runs."""
    words: list[str] = []
    try:
        with path.open("rb") as f:
            for op, value, _ in pickletools.genops(f):
                if op.name == "GLOBAL":
                    return str(value).replace(" ", ".")
                if op.name == "STACK_GLOBAL":
                    return ".".join(words[-2:])
                if isinstance(value, str):
                    words.append(value)
    except ValueError:
        pass
    return None


def main(path: Path, out: Path) -> dict[str, Any]:
    """What `convert` returns, or `refused`: the reason, to be put behind the file's name."""
    guard(path, out)
    try:
        tensors, plain, beside = unpack(_load(path))
        size = path.stat().st_size
        for name, tensor in tensors.items():
            if tensor.numel() * tensor.element_size() > size:
                raise UserError(f": {name} claims more bytes than the file has")
        weights.write_safetensors(out, tensors, tensors.__getitem__)
    except UserError as error:
        return {"refused": str(error)}
    return {"plain": plain, "beside": beside}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
