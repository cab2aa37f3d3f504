"""What this machine has and what it lacks, for `iv doctor`."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ivcore.errors import WorkError
from tasks import runtime

FREE_GB = 2.0


def examine(home: str | None) -> list[dict[str, Any]]:
    """One row a check: name, ok, value, cure."""
    checks = [_check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")]
    checks.append(_check("cores", True, str(len(os.sched_getaffinity(0))), ""))
    checks += [*_versions(), _torch(), *_decoders(), *_workspace(home)]
    return checks


def _check(name: str, ok: bool, value: str, cure: str) -> dict[str, Any]:
    return {"name": name, "ok": bool(ok), "value": value, "cure": "" if ok else cure}


def _versions() -> list[dict[str, Any]]:
    """Installed packages against the pins of this distribution."""
    from packaging.requirements import Requirement

    try:
        wanted = importlib.metadata.requires("ivflow") or []
    except importlib.metadata.PackageNotFoundError:
        return [_check("ivflow", False, "not installed", "pip install --no-deps --editable .")]
    checks = []
    for text in wanted:
        pin = Requirement(text)
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            found = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            checks.append(_check(pin.name, False, "missing", f"pip install '{pin}'"))
            continue
        ok = pin.specifier.contains(found, prereleases=True)
        checks.append(_check(pin.name, ok, f"{found} (wants {pin.specifier})", f"pip install '{pin}'"))
    return checks


def _torch() -> dict[str, Any]:
    try:
        import torch
    except ImportError as e:
        return _check("device", False, f"torch: {e}", "make setup")
    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if cuda else f"cpu, {torch.get_num_threads()} threads"
    return _check("device", True, name, "")


def _decoders() -> list[dict[str, Any]]:
    checks = []
    for name, needed in (("decord", False), ("av", True)):
        there = importlib.util.find_spec(name) is not None
        value = "importable" if there else "missing" + ("" if needed else "; PyAV decodes instead")
        checks.append(_check(f"{name} import", there or not needed, value, f"pip install {name}"))
    return checks


def _workspace(home: str | None) -> list[dict[str, Any]]:
    try:
        place = runtime.prepare(home)
    except WorkError as e:
        return [_check("workspace", False, str(home or Path("workspace")), str(e))]
    free = shutil.disk_usage(place).free / 1e9
    return [
        _check("workspace", True, f"{place} can be written", ""),
        _check("disk", free >= FREE_GB, f"{free:.1f} GB free", f"free {FREE_GB:.0f} GB or give --home elsewhere"),
    ]
