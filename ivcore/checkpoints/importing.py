"""`iv import`: published files -> a model folder, strictly. Nothing is written unless every entry has its place.

The folder holds model.safetensors and config.json as transformers writes them, tokenizer.json if one was given,
import.json (files with their hashes, and the bin of every key) and README.md, the model card.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ivcore
from ivcore.checkpoints import card
from ivcore.checkpoints.account import Account, Convert, settle
from ivcore.checkpoints.sources import Source, label, open_source
from ivcore.checkpoints.weights import write_safetensors
from ivcore.errors import UserError
from ivcore.models import (
    ClipConfig,
    ClipModel,
    S2Config,
    S2Model,
    clip_config,
    load_size,
    s2_config,
    size_names,
)
from ivcore.models.convert import (
    clip_state,
    clip_text_state,
    clip_tower_state,
    clip_vision_state,
    frames_of,
    s2_state,
)
from ivcore.models.dimensions import VisionShape
from ivcore.store.durable import aside, put_folder
from ivcore.text.tokenizer import Tokenizer

RECORD = "import.json"
SCHEMA = 1
_IN_THE_WAY = "{} is there already and is another thing; give --out another name or delete it"
ORDER = ("s2", "clip", "tower", "llama", "mobileclip", "delta")  # in which files apply; later ones override
WORDS = ("text_encoder.bert.embeddings.word_embeddings.weight", "text_encoder.embeddings.word_embeddings.weight")
TOKENS = ("text_encoder.transformer.embed_tokens.weight", "transformer.embed_tokens.weight")


def import_weights(
    paths: Sequence[Path],
    model: str,
    out: Path | None,
    frames: int | None = None,
    pixels: int | None = None,
    tokenizer: Path | None = None,
) -> dict[str, Any]:
    """Import files into the folder `out`; returns the record that import.json holds.

    Args:
        paths: files, shard indices or folders, in any order; what each one is shows in its names.
        model: FORM-SIZE, as in s2-1B or clip-B14.
        out: a folder that does not exist yet (or holds this very import); None: settle the account and write nothing,
            missing and unexpected keys included.
        frames: frames the model takes; None: as many as the size says.
        pixels: edge of a frame; None: as the size says.
        tokenizer: a tokenizer.json or a folder that holds one; its hash is kept in config.json.

    Raises:
        UserError: in one line naming file, key and cure; then nothing is written.
    """
    form, size = parse_model(model)
    if out is not None and out.exists() and not (out / RECORD).is_file():
        raise UserError(_IN_THE_WAY.format(out))  # before large files are read
    words = None if tokenizer is None else _tokenizer(tokenizer)
    options = {"frames": frames, "pixels": pixels, "tokenizer_sha256": words.sha256 if words else None}
    with aside((out or Path(f"{model}.dry-run")).absolute()) as scratch:
        pickles = scratch / "pickles"
        pickles.mkdir()
        sources = [open_source(path, pickles) for path in paths]
        label(sources)
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "model": model,
            "options": options,
            "ivflow": ivcore.__version__,
            "sources": [{"file": s.label, "role": s.role, "files": s.files, "beside": s.beside} for s in sources],
        }
        if out is not None and out.exists():
            return _same_import(out, record)
        config = _config(form, size, sources, frames, pixels)
        if words is not None:
            _fit_tokenizer(words, config, tokenizer)
        account = _settle(form, size, config, sources)
        record.update(counts=account.counts(), started=account.started, keys=account.rows)
        if out is None:
            for name in account.recipes:
                _value(name, account, config)
            return record
        account.refuse(model)
        made = scratch / "model"
        made.mkdir()
        _write(made, form, config, account, words)
        (made / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        (made / "README.md").write_text(card.write(record, config, made / "model.safetensors"))
        _publish(made, out)
    return record


def parse_model(model: str) -> tuple[str, str]:
    """`s2-1B` -> ("s2", "1B").

    Raises:
        UserError: naming what there is.
    """
    form, _, size = model.partition("-")
    if form not in ("s2", "clip") or size not in size_names():
        known = ", ".join(f"{f}-{s}" for f in ("s2", "clip") for s in size_names())
        raise UserError(f"--model {model!r} is no form and size; known: {known}")
    return form, size


def _config(
    form: str, size: str, sources: list[Source], frames: int | None, pixels: int | None
) -> S2Config | ClipConfig:
    _check_roles(form, size, sources)
    shapes = {n: t for s in sources for n, t in s.weights.meta.items()}
    rows = next((len(shapes[n]) for n in (WORDS if form == "s2" else TOKENS) if n in shapes), None)
    has_vocab = "vocab_size" in load_size(size)[form]["text"]
    overrides = {"num_frames": frames, "image_size": pixels}
    build = s2_config if form == "s2" else clip_config
    config = build(
        size, None if has_vocab else rows or 1, 0, **{name: n for name, n in overrides.items() if n is not None}
    )
    for source in sources:
        _check_size(source, form, size, config.vision_shape())
    return config


def _check_roles(form: str, size: str, sources: list[Source]) -> None:
    """s2 is one s2 file. clip is a whole clip file, or a vision file and a text file; deltas on top of either."""
    roles = [source.role for source in sources]
    text = load_size(size)["clip"]["text"]["kind"]
    groups = ("s2",) if form == "s2" else ("clip or s2 or tower", f"clip or {text}")
    for source in sources:
        if source.role != "delta" and not any(source.role in group.split(" or ") for group in groups):
            raise UserError(
                f"{source.path} is a {source.role} file; {form}-{size} is made of {' and '.join(groups)}"
                f"{' and delta' if form == 'clip' else ''}; leave it out"
            )
    if form == "s2" and "delta" in roles:
        raise UserError(f"{sources[roles.index('delta')].path} is a delta of clip; give --model clip-{size}")
    for group in groups:
        given = [s for s in sources if s.role in group.split(" or ")]
        if not given:
            found = ", ".join(f"{s.path} ({s.role})" for s in sources)
            raise UserError(
                f"{form}-{size} also needs a file of role {group}, to what was given: {found}; a published clip file "
                "is a delta, the few tensors that training moved"
            )
        if len(given) > 1:
            raise UserError(f"{' and '.join(str(s.path) for s in given)} are of role {group}; give one of them")


def _check_size(source: Source, form: str, size: str, shape: VisionShape) -> None:
    """Refuse another size's vision tower by the size it is, before its shapes are compared one by one."""
    meta = source.weights.meta
    if source.role not in ("s2", "clip", "tower"):
        return
    prefix = "" if source.role == "tower" else "vision_encoder."
    patches = meta.get(f"{prefix}patch_embed.proj.weight")
    blocks = {n.removeprefix(f"{prefix}blocks.").partition(".")[0] for n in meta if n.startswith(f"{prefix}blocks.")}
    depth = 1 + max((int(b) for b in blocks if b.isdigit()), default=-1)
    if patches is None or (len(patches), depth) == (shape.width, shape.depth):
        return
    sizes = {name: load_size(name)["vision"] for name in size_names()}
    fitting = [f"{form}-{n}" for n, v in sizes.items() if (v["width"], v["depth"]) == (len(patches), depth)]
    cure = f"give --model {' or '.join(fitting)}" if fitting else f"no size here is that: {', '.join(sizes)}"
    raise UserError(
        f"{source.path}: {prefix}patch_embed.proj.weight is {len(patches)} wide and the tower has {depth} blocks; "
        f"{form}-{size} is {shape.width} wide with {shape.depth}; {cure}"
    )


def _settle(form: str, size: str, config: S2Config | ClipConfig, sources: list[Source]) -> Account:
    published = replace(config.vision_shape(), image_size=load_size(size)["vision"]["image_size"])
    with torch.device("meta"):
        model = S2Model(config) if isinstance(config, S2Config) else ClipModel(config)
    ordered = sorted(sources, key=lambda source: ORDER.index(source.role))
    parts = [(source, _conversion(form, size, config, source, published.grid[1])) for source in ordered]
    started = {"temp": f"{config.temp}, the size's start: no file given has clip's"} if form == "clip" else None
    return settle(parts, model.state_dict(), started)


def _conversion(form: str, size: str, config: S2Config | ClipConfig, source: Source, side: int) -> Convert:
    """The function of convert.py that this file goes through; it works on any part of the file alike."""
    shape = config.vision_shape()
    if form == "s2":
        return partial(s2_state, shape=shape, side=side)
    if source.role == "s2":
        old = s2_config(size, 1).vision_shape() if size == "tiny" else s2_config(size).vision_shape()
        table = source.weights.meta.get("vision_encoder.pos_embed")
        if table is not None:
            try:
                old = replace(old, num_frames=frames_of(table, old.grid[1]) * old.tubelet_size)
            except UserError as error:
                raise UserError(f"{source.path}: vision_encoder.pos_embed: {error}") from None
        return partial(clip_vision_state, old=old, new=shape)
    if source.role == "tower":
        return partial(clip_tower_state, shape=shape, side=side)
    if source.role in ("llama", "mobileclip"):
        return partial(clip_text_state, kind=source.role)
    return partial(clip_state, shape=shape, side=side)


def _tokenizer(path: Path) -> Tokenizer:
    if path.is_file() and path.name != "tokenizer.json":
        raise UserError(f"--tokenizer {path} is no tokenizer.json; give that file or the folder it lies in")
    return Tokenizer.load(path if path.is_dir() else path.parent)


def _fit_tokenizer(words: Tokenizer, config: S2Config | ClipConfig, path: Path | None) -> None:
    shape = config.text_shape()
    size = shape.vocab_size
    kind = {"llama": "llama", "mobileclip": "clip_bpe"}.get(getattr(shape, "kind", ""), "bert")
    if words.vocab_size != size or words.kind != kind:
        raise UserError(
            f"--tokenizer {path} is of kind {words.kind} with {words.vocab_size} pieces; the model reads {kind} ids "
            f"of {size} pieces; give the tokenizer it was trained with"
        )


def _write(folder: Path, form: str, config: S2Config | ClipConfig, account: Account, words: Tokenizer | None) -> None:
    meta = {name: recipe.meta for name, recipe in account.recipes.items()}
    dtype = reduce(torch.promote_types, {t.dtype for t in meta.values() if t.is_floating_point()})
    meta.update({name: torch.empty((), dtype=dtype, device="meta") for name in account.started})
    config.architectures = ["S2Model" if form == "s2" else "ClipModel"]
    config.dtype = dtype  # the widest in the files: transformers brings every tensor to it at load
    if words is not None:
        config.tokenizer_sha256 = words.sha256
        words.save(folder)
    write_safetensors(folder / "model.safetensors", meta, partial(_value, account=account, config=config))
    config.save_pretrained(folder)


def _value(name: str, account: Account, config: S2Config | ClipConfig) -> Tensor:
    """The tensor to be written under a name, looked through for NaN and infinity."""
    if name in account.started:
        return torch.tensor(getattr(config, name)).to(config.dtype)
    recipe = account.recipes[name]
    value = recipe.make()
    for twin in (twin for kept, twin in account.twins if kept == name):
        if not torch.equal(twin.make(), value):
            raise UserError(
                f"{twin.source.path}: {twin.entries[0]} and {name} are one tensor in the model but differ here; "
                "fetch the file again"
            )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise UserError(
            f"{recipe.source.path}: {', '.join(recipe.entries)} holds NaN or infinity; these weights are spoilt, fetch "
            "the file again or take an earlier checkpoint"
        )
    return value


def _same_import(out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        there: dict[str, Any] = json.loads((out / RECORD).read_text())
    except (OSError, ValueError):
        there = {}

    def identity(r: Mapping[str, Any]) -> Any:
        files = [[f["sha256"] for f in s["files"]] for s in r.get("sources", [])]
        return r.get("schema"), r.get("model"), r.get("options"), sorted(files)

    if identity(there) != identity(record):
        raise UserError(_IN_THE_WAY.format(out))
    return there


def _publish(made: Path, out: Path) -> None:
    """Flush the folder to disk and put it in place in one move."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        put_folder(made, out)
    except OSError:
        raise UserError(f"{out} came to be there in the meantime; give --out another name") from None
