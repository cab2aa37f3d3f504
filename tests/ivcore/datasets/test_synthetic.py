"""The made-up data set: same bytes for a seed, honest splits, swaps that keep the words."""

import collections
from pathlib import Path

import numpy as np
import pytest

from ivcore.config import DataConfig, SyntheticConfig
from ivcore.datasets.sets import synthetic
from ivcore.datasets.shapes import scenes, wording
from ivcore.datasets.shapes.drawing import draw
from ivcore.errors import UserError
from ivcore.store.artifacts import Store
from ivcore.text.cleaning import pre_text
from ivcore.text.tokenizer import Tokenizer
from ivcore.video.probe import open_video

TWO = SyntheticConfig(train_clips=400, val_clips=40, test_clips=40)
FOUR = SyntheticConfig(train_clips=400, val_clips=40, test_clips=40, objects=4, sibling_share=1.0)
BOTH = pytest.mark.parametrize("config", [TWO, FOUR], ids=["two", "four"])


def families(config: SyntheticConfig) -> dict[str, list[scenes.Clip]]:
    out = collections.defaultdict(list)
    for clip in scenes.clips(config):
        out[clip.family].append(clip)
    return dict(out)


def test_videos_are_the_same_bytes_for_a_seed(tmp_path: Path) -> None:
    config = SyntheticConfig(train_clips=8, val_clips=4, test_clips=4)
    roots = [
        synthetic.root(Store(tmp_path / name), DataConfig(synthetic=config.model_copy(update={"seed": seed})))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    names = sorted(p.relative_to(roots[0]) for p in roots[0].rglob("*.mp4"))
    assert len(names) == 16
    a, b, c = ([(root / n).read_bytes() for n in names] for root in roots)
    assert a == b
    assert all(x != y for x, y in zip(a, c))
    with open_video(roots[0] / names[0]) as video:
        assert not video.table.unclean and len(video.table.pts) == 16
        facts = {"width": 64, "height": 64, "fps": 8.0, "duration_s": 2.0, "codec": "h264", "pixel_aspect": 1.0}
        assert video.table.facts == facts


def test_pictures_show_what_the_caption_says() -> None:
    frames = draw((("red", "square", "left"), ("green", "circle", "grow")), 64, 16, np.random.default_rng(0)).astype(
        int
    )
    red, green = frames[..., 0] - frames[..., 1] > 100, frames[..., 1] - frames[..., 0] > 100
    assert red[:, 32:].sum() == 0 and green[:, :32].sum() == 0  # red is the upper one
    columns = [np.nonzero(f)[1].mean() for f in red]
    assert columns[0] - columns[-1] > 20 and all(np.diff(columns) < 0)
    assert green[-1].sum() > 3 * green[0].sum()


@BOTH
def test_splits_share_no_scene_and_no_swap_of_one(config: SyntheticConfig) -> None:
    bags = {s: {scenes.bag(c.scene) for c in scenes.clips(config) if c.split == s} for s in ("train", "val", "test")}
    assert all(bags.values())
    assert not bags["train"] & bags["val"] and not bags["train"] & bags["test"] and not bags["val"] & bags["test"]
    every = [clip.scene for clip in scenes.clips(config)]
    assert len(set(every)) == len(every)


@BOTH
def test_families(config: SyntheticConfig) -> None:
    sizes = collections.Counter((clips[0].split, len(clips)) for clips in families(config).values())
    train = {("train", 2): 100, ("train", 1): 200} if config.objects == 2 else {("train", 4): 100}
    assert sizes == {("val", 4): 10, ("test", 4): 10, **train}
    for clips in families(config).values():
        assert len({scenes.bag(c.scene) for c in clips}) == 1
        assert len({c.scene for c in clips}) == len(clips)


@BOTH
@pytest.mark.parametrize("language", wording.LANGUAGES)
@pytest.mark.parametrize("text_class", wording.TEXT_CLASSES)
def test_swaps_have_the_same_words_in_another_order(config: SyntheticConfig, language: str, text_class: str) -> None:
    for clips in families(config).values():
        texts = [pre_text(wording.caption(c.scene, language, text_class)) for c in clips]
        assert len(set(texts)) == len(texts)
        split = sorted if language == "zh" else lambda t: sorted(t.split())
        assert all(split(t) == split(texts[0]) for t in texts)


@BOTH
def test_long_captions_are_beyond_32_tokens_and_short_ones_are_not(config: SyntheticConfig) -> None:
    _, captions = synthetic.rows(DataConfig(synthetic=config), Path())
    assert len(captions) == 6 * 480
    tokenizer = Tokenizer.train([c["caption"] for c in captions], 1000, "bert")
    for language in wording.LANGUAGES:
        for text_class in wording.TEXT_CLASSES:
            wanted = (language, text_class)
            texts = [c["caption"] for c in captions if (c["language"], c["text_class"]) == wanted]
            _, mask = tokenizer.encode(texts, 500)
            lengths = mask.sum(1)
            assert lengths.max() <= 32 if text_class == "short" else lengths.min() > 50


def test_eval_scenes_do_not_hang_on_the_size_of_train() -> None:
    small = TWO.model_copy(update={"train_clips": 10})
    pick = [[c for c in scenes.clips(config) if c.split != "train"] for config in (TWO, small)]
    assert pick[0] == pick[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"val_clips": 10}, "val_clips = 10"), ({"train_clips": 20_000}, "train_clips = 20000 is too many")],
)
def test_what_cannot_be_made_is_said(change: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        scenes.clips(TWO.model_copy(update=change))


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    data = DataConfig(synthetic=TWO.model_copy(update={"size_px": 65}))
    with pytest.raises(UserError, match="65 is odd"):
        synthetic.root(Store(tmp_path), data)
