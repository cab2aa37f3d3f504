"""What this machine has and what it lacks, for `iv doctor`."""

import collections
import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ivcore.errors import UserError, WorkError
from ivcore.store import object_store, soundness
from ivcore.store.artifacts import Store
from tasks import runtime, safety

FREE_GB = 2.0


def examine(home: str | None, verify: bool = False) -> list[dict[str, Any]]:
    """One row a check: name, ok, value, cure. `verify` reads every artifact."""
    checks = [_check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")]
    checks.append(_check("cores", True, str(len(os.sched_getaffinity(0))), ""))
    checks += [*_versions(), _torch(), *_decoders(), *_workspace(home)]
    return checks + (_artifacts(home) if verify else [])


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
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    amx = "with" if "amx_bf16" in flags else "without"
    cpu = f"cpu {amx} AMX, {torch.get_num_threads()} threads"
    if not cuda:
        return _check("device", True, f"{cpu}, no CUDA", "")
    cards = collections.Counter(_card(n) for n in range(torch.cuda.device_count()))
    return _check("device", True, "; ".join([*(f"{count} x {name}" for name, count in cards.items()), cpu]), "")


def _card(number: int) -> str:
    """What a card is and which kernels it takes."""
    import torch

    from ivcore.models import device

    card, capability = torch.cuda.get_device_properties(number), torch.cuda.get_device_capability(number)
    takes = f"attention: {device.kernels(capability)}; {device.lacks(capability) or 'bfloat16'}"
    return f"{card.name}, {card.total_memory / 1e9:.0f} GB, {takes}"


def _decoders() -> list[dict[str, Any]]:
    """Each decoder on a real file; decord may be missing, PyAV does its work then."""
    try:
        import numpy as np

        from ivcore.datasets.shapes.drawing import encode
        from ivcore.video import decode_file as files
        from ivcore.video.sampling import Sampling
    except ImportError as e:
        return [_check("decoder", False, str(e), "make setup")]
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "ramp.mp4"
        ramp = np.arange(0, 160, 20, dtype=np.uint8)  # each frame one grey, brighter than the one before
        encode(video, np.broadcast_to(ramp[:, None, None, None], (len(ramp), 64, 64, 3)).copy(), fps=8)
        for name in ("decord", "pyav"):
            if name == "decord" and files.decord is None:  # type: ignore[attr-defined]
                checks.append(_check(name, True, "not for this machine; PyAV decodes instead", ""))
                continue
            found = files.decode_file(files.Task(video, Sampling("middle", 4), 32, decoder=name))
            greys = [] if found.frames is None else [int(frame.mean()) for frame in found.frames]
            ok = len(greys) == 4 and all(
                abs(grey - int(ramp[i])) <= 6 for grey, i in zip(greys, found.frame_index or [])
            )
            says = f"{found.decoder} reads an mp4" if ok else f"{found.error}: {found.detail} {greys}"
            checks.append(_check(name, ok, says, f"pip install --force-reinstall {'av' if name == 'pyav' else name}"))
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
        *safety.permissions(place),
        *_remote(),
        *safety.servers(place),
    ]


def _artifacts(home: str | None) -> list[dict[str, Any]]:
    """Every artifact, all bytes of it; a damaged one is set aside."""
    store, checks, num = Store(runtime.prepare(home)), [], 0
    for artifact in store.all():
        num += 1
        file = soundness.fault(artifact.path)
        if file:
            said = soundness.damaged(artifact.path / file, "is not as it was written")
            checks.append(_check("artifact", False, str(said), "iv run"))
    return [*checks, _check("artifacts", not checks, f"{num - len(checks)} of {num} are as they were written", "")]


def _remote() -> list[dict[str, Any]]:
    """The object store, if there is one: a small file is written there and deleted."""
    address = os.environ.get(object_store.ADDRESS)
    if not address:
        return []
    try:
        object_store.connect(address).probe()
    except (UserError, WorkError, OSError) as e:
        return [_check("remote", False, object_store.shown(address), str(e))]
    return [_check("remote", True, f"{object_store.shown(address)} can be written", "")]
