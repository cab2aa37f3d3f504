"""The model card of an imported model: README.md with the header that the Hub reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ivcore.models import ClipConfig, S2Config
from ivcore.store.known_files import sha256_file

WHAT = {
    True: "An InternVideo2 s2 model: it finds candidates by comparing vectors and re-scores them with a matching head.",
    False: "An InternVideo2 clip model: a video and a text become one vector each, and their cosine is the score.",
}
TERMS = {
    "s2": "InternVideo2's weights (OpenGVLab): the Hub asks you to accept their terms before you may fetch them.",
    "tower": "InternVideo2's distilled vision tower (OpenGVLab): the terms of its Hub repository hold.",
    "delta": "InternVideo2's clip training (OpenGVLab): the terms of its Hub repository hold.",
    "llama": "InternVL's text tower, which goes back to LLaMA: InternVL's terms and Meta's LLaMA licence hold.",
    "mobileclip": "Apple's MobileCLIP text tower: Apple's licence for its weights holds.",
    "clip": "a whole clip model: the terms of everything it was assembled from hold.",
}


def write(record: Mapping[str, Any], config: S2Config | ClipConfig, weights: Path) -> str:
    """The text of README.md.

    Args:
        record: what import.json holds.
        config: of the model.
        weights: the model.safetensors just written.
    """
    is_s2 = isinstance(config, S2Config)
    vision = config.vision_shape()
    given = record["options"]["tokenizer_sha256"]
    return f"""---
library_name: transformers
pipeline_tag: feature-extraction
tags:
- video-text-retrieval
- internvideo2
- ivflow
license: other
license_name: terms-of-the-sources
---

# {record["model"]}

{WHAT[is_s2]}
It was imported by ivflow {record["ivflow"]} from the files below; no number in it was trained or changed otherwise
than the account says.

| | |
| --- | --- |
| video | {vision.num_frames} frames of {vision.image_size} x {
        vision.image_size
    } pixels, normalised with ImageNet's mean \
and deviation |
| vision tower | {vision.depth} blocks, {vision.width} wide |
| compared vectors | {config.embed_dim} numbers |
| stored as | {str(config.dtype).removeprefix("torch.")} |
| model.safetensors | sha256 `{sha256_file(weights)}` |

## Made from

| file | what it is | bytes | sha256 |
| --- | --- | --- | --- |
{_files(record)}

What became of their entries (every one is named in `import.json`):

| file | loaded | converted | ignored on purpose |
| --- | --- | --- | --- |
{_counts(record)}
{_notes(record)}
## How to load it

```python
import torch
from transformers import AutoModel
import ivcore.models  # tells transformers about the model; no remote code

model = AutoModel.from_pretrained("this folder").eval()
video = torch.zeros(1, {vision.num_frames}, 3, {vision.image_size}, {vision.image_size}, dtype=model.dtype)
with torch.no_grad():
    {_example(is_s2)}
```

`iv export THIS_FOLDER --out FILE` gives the weights back under upstream's names.

## Limits

- {_words(is_s2, config, given)}
- Scores tell which video fits a text better. They are no probabilities, and say nothing about whether any fits.
- A vector of another model, size or number of frames cannot be compared with one of this model.
- What the model learnt from web video it repeats, its biases and blind spots included. Do not use it to judge people.

## Licence

ivflow's code is Apache-2.0. The weights are not ivflow's, and being in this folder changes none of their terms:

{_terms(record)}
"""


def _files(record: Mapping[str, Any]) -> str:
    rows = ((source, file) for source in record["sources"] for file in source["files"])
    return "\n".join(f"| {f['name']} | {s['role']} | {f['bytes']:,} | `{f['sha256']}` |" for s, f in rows)


def _counts(record: Mapping[str, Any]) -> str:
    return "\n".join(
        f"| {file} | {bins['loaded']} | {bins['converted']} | {bins['ignored']} |"
        for file, bins in record["counts"].items()
    )


def _notes(record: Mapping[str, Any]) -> str:
    lines = [f"- `{row['key']}` was {row['why']}" for row in record["keys"] if "resized" in row.get("why", "")]
    lines += [f"- `{name}` is {why}" for name, why in record["started"].items()]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _example(is_s2: bool) -> str:
    if is_s2:
        encode = "tokens, pooled = model.encode_video(video)  # [1, 1+N, C], [1, P]"
        return f"{encode}\n    vector = model.project_video(pooled)  # [1, E], not normalised"
    return "vector = model.encode_video(video)  # [1, E], not normalised"


def _words(is_s2: bool, config: S2Config | ClipConfig, given: str | None) -> str:
    rules = {
        "bert": "captions lower-cased and stripped of punctuation, [CLS] in front and no [SEP] behind",
        "llama": 'captions with "summarize:" in front, begin 1 and end 2, padded on the right with 0',
        "mobileclip": "OpenCLIP's byte pairs, begin 49406 and end 49407, padded with 0 to 77; ivflow has no tokenizer "
        "for them yet",
    }
    kind = "bert" if is_s2 else config.text_shape().kind
    has = f"The tokenizer is here (sha256 `{given}`)." if given else "No tokenizer is here; another's gives nonsense."
    return f"{has} The text tower wants {rules[kind]}."


def _terms(record: Mapping[str, Any]) -> str:
    return "\n".join(f"- {source['file']}: {TERMS[source['role']]}" for source in record["sources"])
