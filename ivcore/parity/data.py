"""Frame numbers, pictures, captions and tokens against what upstream's own code gave: topic data_io of `iv parity`."""

from collections.abc import Iterator
from typing import Any

import torch

from ivcore.models.masking import random_drop_mask
from ivcore.text.cleaning import pre_text
from ivcore.text.tokenizer import Tokenizer, wordpieces_of
from ivcore.video import sampling
from ivcore.video.frames import normalise
from ivcore.video.resize import resize

NOT_BUILT = {
    r"frames/.*fix_start.*": "a frame at a fixed place of each segment: no recipe uses it",
    r"demo_.*|zero_shot/.*": "upstream's demo (OpenCV resize, stride, softmax): neither training nor scoring uses it",
    r"clip_tokens/.*": "open_clip's vocabulary, which is not in the recording; a model comes with its tokenizer.json",
    r"llama_tokens/.*": "a SentencePiece file; a model comes with its tokenizer.json",
    r"num_masked/.*/tube": "the same patches of every frame: no recipe uses it",
}


def data_io(recording: Any) -> Iterator[tuple[str, Any, Any]]:
    """(case, ours, theirs) for every recorded sampling rule, transform, caption, token and number of masked patches."""
    results, outs = recording.results, recording.tensors
    for case in results["get_frame_indices"]:
        given = case["args"]
        name = "frames/" + ",".join(f"{k}={v}" for k, v in given.items())
        outs[f"out/{name}"] = torch.tensor(case["indices"], dtype=torch.int64)
        if "fix_start" not in given:
            yield from recording.checks(name, {"": torch.tensor(_frames(**given), dtype=torch.int64)})
    for case in recording.config["transform_cases"]:
        frames = recording.get(case["in"].removeprefix("in/")).permute(0, 2, 3, 1).byte().numpy()  # [T, H, W, C]
        for kind in ("antialias", "no_antialias"):
            small = torch.from_numpy(resize(frames, case["image_res"], antialias=kind == "antialias"))
            ours = {kind: normalise(small[None])[0], f"resized_uint8_{kind}": small.permute(0, 3, 1, 2)}
            yield from recording.checks(case["name"], ours)
    for n, case in enumerate(results["pre_text"]):
        yield f"pre_text/{n}", " ".join(pre_text(case["text"]).split(" ")[: case["max_l"]]), case["result"]
    for case in results["num_masked"]:
        name = f"num_masked/{case['window']},{case['ratio']}"
        outs |= {f"out/{name}/{kind}": torch.tensor(case[kind][0]) for kind in ("random", "tube")}
        num = int(torch.tensor(case["window"]).prod())
        dropped = random_drop_mask(1, num, case["ratio"], torch.Generator().manual_seed(0)).sum()
        yield from recording.checks(name, {"random": dropped})
    yield from recording.checks("bert_tokens", _tokens(recording.config["tokenizers"]))


def _frames(num_frames: int, vlen: int, sample: str, input_fps: float = 1.0, max_num_frames: int = -1) -> list[int]:
    if sample == "middle":
        return sampling.middle(vlen, num_frames)
    most = max_num_frames if max_num_frames > 0 else None
    return sampling.every(vlen, float(sample.removeprefix("fps")), input_fps, most)


def _tokens(about: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Ids and mask padded to the full length, int64 [B, L]."""
    tokenizer = Tokenizer(wordpieces_of({piece: n for n, piece in enumerate(about["bert_vocab"])}, "bert"))
    lists = tokenizer.ids(about["texts"], about["max_txt_l"])
    ids = torch.zeros(len(lists), about["max_txt_l"], dtype=torch.int64)
    mask = ids.clone()
    for row, some in enumerate(lists):
        ids[row, : len(some)], mask[row, : len(some)] = torch.tensor(some), 1
    return {"input_ids": ids, "attention_mask": mask}
