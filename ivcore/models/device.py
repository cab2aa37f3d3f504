"""The device that models run on: which one, with which of torch's attention kernels, and what to say when it is full.

cuDNN's attention builds a plan for every shape it has not seen, 0.05 to 1 s each on an H100 (docs/gpu.md), and texts
come in many shapes: it is switched off. Flash serves half precision without a mask, the memory-efficient kernel masks
and float32; torch chooses between those by itself.
"""

import contextlib
import logging
import re
from collections.abc import Iterator

import torch

from ivcore.errors import WorkError

AMPERE = (8, 0)  # compute capability from which a card has bfloat16 and flash attention
ROOM = re.compile(r"allocate ([\d.]+ \w+).*?capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", re.S)
said = logging.getLogger("iv.device")


def choose(name: str) -> torch.device:
    """The torch device of a config: auto takes CUDA where there is one. Its attention kernels are chosen with it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if device.index is None:  # by number, since the current card is a thread's own
            device = torch.device("cuda", torch.cuda.current_device())
        torch.backends.cuda.enable_cudnn_sdp(False)
        capability = torch.cuda.get_device_capability(device)
        if capability < AMPERE:
            said.warning("%s: %s", torch.cuda.get_device_name(device), lacks(capability))
    return device


def kernels(capability: tuple[int, int]) -> str:
    """The attention kernels that a card of this compute capability takes, best first."""
    return "flash, memory-efficient; cuDNN off" if capability >= AMPERE else "memory-efficient; cuDNN off"


def lacks(capability: tuple[int, int]) -> str:
    """What a card is too old for, and what is done instead; empty for others."""
    if capability >= AMPERE:
        return ""
    at = ".".join(map(str, capability))
    return (
        f"compute capability {at} has no flash attention, so the memory-efficient kernel serves; bfloat16 is emulated "
        "there, train.dtype = float32 may be faster"
    )


@contextlib.contextmanager
def memory(cures: str) -> Iterator[None]:
    """Inside, a card without room is one line: what was asked for, what is free, and the settings that help.

    Raises:
        WorkError: instead of torch.OutOfMemoryError.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        found = ROOM.search(str(error))
        asked = f"{found[1]} were asked for, {found[3]} of {found[2]} are free" if found else str(error).splitlines()[0]
        raise WorkError(f"the GPU has no room: {asked}; {cures} helps") from error
