"""What a figure was measured on: the machine's name, and the most memory that was held."""

import os
import re
from pathlib import Path

import torch

from ivcore.store.peak import Peak

_peak = Peak()


def name(device: torch.device) -> str:
    """One line: the GPU's name, or the processor's with the cores and memory this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found.group(1).strip() if found else "cpu"
        cores, pages = len(os.sched_getaffinity(0)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError, ValueError):  # not Linux
        return "cpu"
    return f"{model}, {cores} core{'s' if cores > 1 else ''}, {pages / 1e9:.0f} GB"


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far; where the system does not let us, the peak is that of the whole process."""
    global _peak
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    _peak = Peak()


def peak_mb(device: torch.device) -> float:
    """Most memory held since `reset_peak`, MB of 10^6 bytes: the GPU's on a GPU, else the process's."""
    held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak.bytes()
    return round(held / 1e6, 1)
