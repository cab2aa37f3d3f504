"""The models: vision forward against the plainly written form, what each saving of an s2 step gives, peak memory.

vision_forward_*   S14 tower and pooling, 224 px: ours against the attention matrix written out, in float32
memory_*           highest resident memory above the process's own, MB; the baseline is the file or the weights
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import interleaved, row, seeded
from ivcore.models import S2Model, build_s2
from ivcore.models.layers import Attention, AttentionPool, merge_heads, split_heads

SIZE, FRAMES, BATCH, REPEATS = "S14", 8, 4, 5
MEMORY_SIZE = "B14"
MATMUL = 4096  # edge of the square product that stands for the machine's peak


def run() -> list[dict]:
    return [*vision_forward(), *memory()]


# vision forward


def vision_forward() -> Iterator[dict]:
    model = awake(build_s2(SIZE, None, seed=0, num_frames=FRAMES)).eval()
    plain = awake(build_s2(SIZE, None, seed=0, num_frames=FRAMES)).eval()
    _write_out(plain)
    half = awake(build_s2(SIZE, None, seed=0, num_frames=FRAMES)).eval().bfloat16()
    shape = model.vision_encoder.shape
    video = torch.randn(BATCH, FRAMES, 3, shape.image_size, shape.image_size, generator=seeded())

    def forward(some: S2Model, dtype: torch.dtype) -> Callable[[], Tensor]:
        return torch.inference_mode()(lambda: some.pool(some.encode_tokens(video.to(dtype))).float())

    sides = {"ours": forward(model, torch.float32), "half": forward(half, torch.bfloat16)}
    times, out = interleaved({**sides, "plain": forward(plain, torch.float32)}, REPEATS)
    flop = _flop(shape, BATCH)
    for name, dtype in (("ours", torch.float32), ("half", torch.bfloat16)):
        peak = _matmul_peak(dtype)
        reached = flop / statistics.median(times[name])
        worst = ((out[name] - out["plain"]).abs().max() / out["plain"].abs().max()).item()
        cosine = torch.cosine_similarity(out[name], out["plain"], dim=-1).min().item()
        yield {
            **row(f"vision_forward_{'fp32' if name == 'ours' else 'bf16'}_{SIZE}", times, name, "plain"),
            "equal": worst <= 1e-4 if name == "ours" else cosine >= 0.999,
            "how_equal": f"pooled: largest difference {worst:.1e} of the largest entry, cosine {cosine:.6f}",
            "gflop": round(flop / 1e9, 1),
            "gflops": round(reached / 1e9, 1),
            "matmul_peak_gflops": round(peak / 1e9, 1),
            "share_of_peak": round(reached / peak, 3),
        }


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


def written_pool(self: AttentionPool, tokens: Tensor) -> Tensor:
    """The pooling as published: keys and values of all tokens."""
    attn, query = self.cross_attn, self.norm1_q(tokens.mean(dim=1, keepdim=True))
    sides = ((query, attn.q, attn.q_bias), (self.norm1_k(tokens), attn.k, attn.k_bias))
    sides = (*sides, (self.norm1_v(tokens), attn.v, attn.v_bias))
    q, k, v = (split_heads(F.linear(x, linear.weight, bias), attn.num_heads) for x, linear, bias in sides)
    return attn.proj(merge_heads(attend(q, k, v))).squeeze(1)


def _write_out(model: nn.Module) -> None:
    """Put the plain form into a model: scores as a matrix, softmax, product; the convolution as a convolution."""

    def self_attention(self: Attention, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (split_heads(t, self.num_heads) for t in (self.q_norm(q), self.k_norm(k), v))
        return self.proj(merge_heads(attend(q, k, v)))

    def norm(self: nn.Module, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6) * self.weight

    def patches(self: nn.Module, video: Tensor) -> Tensor:
        return self.proj(video.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)  # [B, T, N, C]

    forms = {"Attention": self_attention, "AttentionPool": written_pool, "RMSNorm": norm, "PatchEmbed": patches}
    for module in model.vision_encoder.modules():
        form = forms.get(type(module).__name__)
        if form is not None:
            module.forward = form.__get__(module)


def _flop(shape: Any, batch: int) -> float:
    """Multiplications and additions of the matrix products of tower and pooling."""
    n, c = 1 + shape.num_patches, shape.width
    patch = 2 * shape.num_patches * 3 * shape.tubelet_size * shape.patch_size**2 * c
    block = 2 * n * (4 * c * c + 2 * c * shape.mlp_hidden) + 4 * n * n * c
    pool = 2 * n * 2 * c * c + 4 * n * c + 2 * (c * c + c * shape.pool_width)
    return batch * (patch + shape.depth * block + pool)


def _matmul_peak(dtype: torch.dtype) -> float:
    """Operations a second of the fastest of several large square products, as nn.Linear does them."""
    a, weight = (torch.randn(MATMUL, MATMUL, generator=seeded()).to(dtype) for _ in "ab")
    times = []
    with torch.inference_mode():
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            F.linear(a, weight)
            times.append(time.perf_counter() - start)
    return 2 * MATMUL**3 / min(times[1:])


# memory


IMPORT = """
from ivcore.checkpoints.importing import import_weights
before = resident("VmRSS")
import_weights([folder / "s2.pt"], "s2-" + size, folder / "out")
import json
print(json.dumps({"self": resident("VmHWM") - before}))
"""
READER = """
from ivcore.checkpoints import pickled
before = resident("VmRSS")
pickled.main(folder / "s2.pt", folder / "out.safetensors")
import os
os.write(1, b'{"self": %f}' % (resident("VmHWM") - before))
"""
FORWARD = """
import torch
from transformers import AutoModel
import ivcore.models
model = AutoModel.from_pretrained(folder / "out").eval()
shape = model.vision_encoder.shape
video = torch.zeros(1, shape.num_frames, 3, shape.image_size, shape.image_size)
before = resident("VmRSS")
with torch.inference_mode():
    model.encode_video(video)
import json
print(json.dumps({"self": resident("VmHWM") - before}))
"""
PREAMBLE = """
import sys
from pathlib import Path
folder, size = Path(sys.argv[1]), sys.argv[2]
def resident(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024
"""


def memory() -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_s2(MEMORY_SIZE, 100 if MEMORY_SIZE == "tiny" else None, seed=0)
        torch.save({"module": {n: t.clone() for n, t in model.state_dict().items()}}, folder / "s2.pt")
        weights_mb = sum(p.numel() for p in model.parameters()) * 4 / 2**20
        del model
        file_mb = (folder / "s2.pt").stat().st_size / 2**20
        parts = {"import": (IMPORT, file_mb), "import_reader": (READER, file_mb), "forward": (FORWARD, weights_mb)}
        for part, (script, baseline) in parts.items():
            peak = _measured(script, folder)
            yield {
                "name": f"memory_{part}_{MEMORY_SIZE}",
                "ours": round(peak, 1),
                "baseline": round(baseline, 1),
                "unit": "MB",
                "spread": {"ours": [peak, peak], "baseline": [baseline, baseline]},
                "equal": part == "forward" or peak <= 1.3 * baseline,
                "how_equal": "nothing to compare" if part == "forward" else "at most 1.3 times the file",
            }


def _measured(script: str, folder: Path) -> float:
    command = [sys.executable, "-c", PREAMBLE + script, str(folder), MEMORY_SIZE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return float(json.loads(done.stdout)["self"])


# shared


def awake(model: Any) -> Any:
    """Layer scales of 0.1 instead of 1e-5, so that the blocks have a say in what is compared."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(".gamma"):
                p.fill_(0.1)
    return model
