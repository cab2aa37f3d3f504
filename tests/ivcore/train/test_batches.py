"""Batches: the same seed gives the same ones, families stay whole, neighbours are those of the model."""

import itertools

import numpy as np
import pytest
import torch

from ivcore.config import Phase
from ivcore.train.batches import Batch, Batches, sample_ids
from ivcore.train.neighbours import nearest
from tests.ivcore.train import made_up


class MadeUpCaptions:
    """40 clips in 10 families of 4, one short English caption each; the last family is not for training."""

    def texts(self, language, text_class, split):
        if (language, text_class, split) != ("en", "short", "train"):
            return []
        return [(f"t{i}", f"c{i:02}", f"caption {i}") for i in range(36)]

    def family(self, clip):
        return str(int(clip[1:]) // 4)

    def media(self, clip):
        return "video"

    def weight(self, clip):
        return 1


CLIPS = [f"c{i:02}" for i in range(40)]
EN = ("video", "en", "short")


def made(seed=0, **fields):
    return Batches(MadeUpCaptions(), CLIPS, Phase(name="p", steps=9, **fields), 8, seed)


def test_seeded():
    assert [b.rows for b in made()] == [b.rows for b in made()]
    assert [b.rows for b in made()] != [b.rows for b in made(seed=1)]


def test_random_batches_use_every_training_clip_before_any_twice():
    rows = [r for b in list(made())[:4] for r in b.rows]
    assert len(set(rows)) == len(rows) == 32
    assert max(r for b in made() for r in b.rows) < 36  # the held-out family never comes


def test_captions_belong_to_their_rows():
    assert all(c == f"caption {r}" for b in made() for r, c in zip(b.rows, b.captions, strict=True))


class SeveralCaptions(MadeUpCaptions):
    """Clip i has 1 + i % 3 captions."""

    def texts(self, language, text_class, split):
        if (language, text_class, split) != ("en", "short", "train"):
            return []
        return [(f"t{i}-{n}", f"c{i:02}", f"caption {i} {n}") for i in range(36) for n in range(1 + i % 3)]


def shown(batch_size, seed=0, name="p", **fields):
    """The captions of each row in the order in which it showed them."""
    phase = Phase(name=name, steps=36 * 6 // batch_size, **fields)
    out = {}
    for batch in Batches(SeveralCaptions(), CLIPS, phase, batch_size, seed):
        for row, caption in zip(batch.rows, batch.captions, strict=True):
            out.setdefault(row, []).append(caption)
    return out


def test_over_the_epochs_a_clip_shows_all_its_captions():
    for row, captions in shown(12).items():
        num = 1 + row % 3
        assert len(captions) == 6  # epochs
        assert all(set(captions[n : n + num]) == {f"caption {row} {i}" for i in range(num)} for n in range(7 - num))


def test_the_caption_hangs_on_seed_clip_and_epoch_alone():
    assert shown(12) == shown(4) == shown(36)  # other batches, the same clips in the same epochs
    grouped = shown(12, batches="families", group_share=0.5)
    assert all(captions[0] == shown(12)[row][0] for row, captions in grouped.items())
    first = {row: captions[0] for row, captions in shown(12).items()}
    assert first != {row: captions[0] for row, captions in shown(12, seed=1).items()}
    assert first != {row: captions[0] for row, captions in shown(12, name="q").items()}
    assert len({captions[0][-1] for row, captions in shown(12).items() if row % 3 == 2}) > 1  # not all at the same


@pytest.mark.parametrize("kind", ["random", "families", "neighbours"])
def test_a_later_batch_can_be_drawn_again_by_skipping(kind):
    batches = made(batches=kind, group_share=0.7)
    batches.neighbours = {EN: {row: np.arange(row - 20, row - 1) % 36 for row in range(36)}}
    whole = [(b.rows, b.captions) for b in batches]
    again = [(b.rows, b.captions) for b in itertools.islice(batches, 5, None)]
    assert len(whole) == 9 and again == whole[5:]


def test_families_come_by_in_turn():
    met = [f for b in itertools.islice(made(batches="families"), 4) for f in set(b.families.tolist())]
    assert len(set(met)) == len(met) == 8  # 2 a batch, of 9


def test_families_come_whole():
    for batch in made(batches="families"):
        assert len(batch.rows) == 8
        assert sorted(torch.bincount(batch.families).tolist(), reverse=True)[:2] == [4, 4]


def test_neighbour_batches_hold_no_clip_twice():
    batches = made(batches="neighbours")
    unit = torch.nn.functional.normalize(torch.randn(36, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    batches.neighbours = {EN: nearest(unit, unit, range(36))}
    assert all(len(set(b.rows)) == len(b.rows) == 8 for b in batches)


class Mixed(MadeUpCaptions):
    """Clips 0-23 are videos, of which 0-7 weigh 2; 24-35 are images. Clips of even number have Spanish as well."""

    def texts(self, language, text_class, split):
        if text_class != "short" or split != "train" or language == "zh":
            return []
        return [(f"t{i}{language}", f"c{i:02}", f"{language} {i}") for i in range(36) if language == "en" or i % 2 == 0]

    def media(self, clip):
        return "image" if int(clip[1:]) >= 24 else "video"

    def weight(self, clip):
        return 2 if int(clip[1:]) < 8 else 1


def mixed(steps, **fields):
    return Batches(Mixed(), CLIPS, Phase(name="p", steps=steps, **fields), 4, 0)


def test_a_batch_is_of_one_media_and_an_epoch_has_as_many_of_each_as_there_are():
    batches = list(mixed(4 * 11))  # 24 + 8 videos are 8 batches, 12 images 3
    for batch in batches:
        assert {"image" if row >= 24 else "video" for row in batch.rows} == {batch.kind.split("/")[0]}
    media = [b.kind.split("/")[0] for b in batches]
    for start in range(0, 44, 11):
        assert media[start : start + 11].count("video") == 8
    assert media[:11] != media[11:22]  # shuffled anew
    times = np.bincount([row for b in batches[:11] for row in b.rows], minlength=36)
    assert times.tolist() == [2] * 8 + [1] * 28


def test_each_clip_draws_a_language_it_has():
    read = {}
    for batch in mixed(11 * 40, languages=("en", "es"), language_by="clip", language_weights=(1, 3)):
        assert batch.kind.split("/")[1] == "any"
        for row, caption in zip(batch.rows, batch.captions, strict=True):
            assert caption.split()[1] == str(row)
            read.setdefault(row, []).append(caption.split()[0])
    assert all(set(some) == ({"en", "es"} if row % 2 == 0 else {"en"}) for row, some in read.items())
    both = [language for row, some in read.items() if row % 2 == 0 for language in some]
    assert 0.70 < both.count("es") / len(both) < 0.80  # 880 draws at 3/4


def test_languages_of_batches_by_weight():
    kinds = [b.kind for b in mixed(1100, languages=("en", "es"), language_weights=(1, 4))]
    share = sum("/es/" in kind for kind in kinds) / len(kinds)
    assert 0.76 < share < 0.84
    with pytest.raises(ValueError, match="2 languages"):
        Phase(name="p", steps=1, languages=("en", "es"), language_weights=(1,))


def test_clips_that_show_or_say_the_same_are_one_sample():
    def groups(rows, captions):
        found = sample_ids(rows, captions)
        return sorted(sorted(n for n, id in enumerate(found) if id == one) for one in set(found))

    assert groups([1, 2, 3], ["a", "b", "c"]) == [[0], [1], [2]]
    assert groups([1, 2, 3, 4], ["a", "b", "a", "b"]) == [[0, 2], [1, 3]]
    assert groups([5, 3, 5, 7], ["x", "x", "y", "z"]) == [[0, 1, 2], [3]]  # the clip 5 says y, too, and 3 what 5 says
    assert groups([1, 1, 2], ["a", "b", "c"]) == [[0, 1], [2]]


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_equal_captions_are_no_negatives_of_each_other(kind):
    """Two clips of one caption: neither loss may push one away from the other's words."""
    loop = made_up.loop(kind, made_up.phase(kind, even_negatives=0.0) if kind == "s2" else made_up.phase(kind))
    batch = next(made_up.batches(1))
    said = Batch(batch.rows, [*batch.captions[:8], *batch.captions[:8]], batch.families, batch.kind)
    inputs = loop.backward.inputs(said, made_up.draws())
    assert torch.equal(inputs.samples[:8], inputs.samples[8:]) and len(set(inputs.samples.tolist())) <= 8
    if kind == "s2":
        (video, text), *_ = loop.backward.objective.encode(inputs)
        for step in range(50):
            drawn = made_up.draws(step=step).negatives(video, text, torch.tensor(0.07), inputs.samples, loop.phase)
            assert all((inputs.samples != inputs.samples[negative]).all() for negative in drawn)


def test_a_batch_of_one_sample_teaches_matching_nothing():
    loop = made_up.loop("s2", made_up.phase("s2", vtc=0.0, mlm=0.0), dropout=0.0)
    batch = next(made_up.batches(1))
    same = Batch(batch.rows, [batch.captions[0]] * 16, batch.families, batch.kind)
    names, losses = loop.backward(same, loop.totals)
    assert names == ["vtm"] and losses.tolist() == [0.0]
    assert all(not p.grad.any() for p in loop.named.values() if p.grad is not None)


def test_phases_whose_names_are_anagrams_draw_other_batches():
    one, other = (Batches(MadeUpCaptions(), CLIPS, Phase(name=name, steps=9), 8, 0) for name in ("ab", "ba"))
    assert [b.rows for b in one] != [b.rows for b in other]


@pytest.mark.parametrize("by", ["batch", "clip"])
def test_neighbours_of_a_batch_are_clips_of_its_own_language(by):
    """Every clip has English, few have Spanish: a Spanish batch knows its anchors and meets none without Spanish."""
    batches = mixed(60, languages=("en", "es"), batches="neighbours", language_by=by)
    unit = torch.nn.functional.normalize(torch.randn(36, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    batches.neighbours = {
        kind: nearest(unit[own := np.unique(pool)], unit[own], own) for kind, pool in batches.pools.items()
    }
    found = list(batches)
    assert {b.kind for b in found if b.kind.startswith("video")} == (
        {"video/en/short", "video/es/short"} if by == "batch" else {"video/any/short"}
    )
    assert all(c == f"{c[:2]} {row}" for b in found for row, c in zip(b.rows, b.captions, strict=True))
    assert set(batches.first_captions()) == set(range(24))  # videos alone


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"batches": "families"},
        {"batches": "families", "group_share": 0.5},
        {"batches": "families", "group_share": 0.0},
        {"batches": "neighbours", "languages": ("en", "es")},
        {"languages": ("es",), "long_share": 0.5},
        {"languages": ("en", "es"), "language_by": "clip"},
    ],
)
@pytest.mark.parametrize("size", [4, 14, 200])
def test_sizes_are_those_of_the_batches_that_come(fields, size):
    batches = Batches(Mixed(), CLIPS, Phase(name="p", steps=120, **fields), size, 0)
    batches.neighbours = {
        kind: {row: pool[pool != row] for row in pool.tolist()} for kind, pool in batches.pools.items()
    }
    assert set(batches.sizes().values()) == {len(b.rows) for b in batches}
    kinds = {name.split(" by ")[0] for name in batches.sizes()}
    assert kinds == {b.kind for b in batches}


def test_a_frozen_trunk_reads_no_images():
    """Its tokens are kept of videos alone; whether they are kept or made again, the same clips are trained on."""
    batches = Batches(Mixed(), CLIPS, Phase(name="p", steps=60, trainable="clip"), 4, 0)
    assert {b.kind for b in batches} == {"video/en/short"}


@pytest.mark.parametrize(("several", "kinds"), [(1, {EN}), (2, {EN, ("video", "es", "short")})])
def test_a_language_of_one_clip_makes_no_batches(several, kinds):
    class Few(MadeUpCaptions):
        def texts(self, language, text_class, split):
            found = super().texts("en", text_class, split)
            return found[:several] if language == "es" else found

    batches = Batches(Few(), CLIPS, Phase(name="p", steps=60, languages=("en", "es")), 8, 0)
    assert set(batches.pools) == kinds
    assert {tuple(b.kind.split("/")): len(b.rows) for b in batches} == {k: 8 if k == EN else 2 for k in kinds}


def test_no_batch_is_larger_than_the_largest_pool_and_a_smaller_one_makes_its_own():
    """24 videos, of which 8 come by twice, and 12 images; half of each has Spanish."""
    batches = Batches(Mixed(), CLIPS, Phase(name="p", steps=60, languages=("en", "es")), 500, 0)
    assert batches.batch_size == 32 and batches.per_epoch == {"video": 1, "image": 1}
    assert batches.sizes() == {"video/en/short": 32, "video/es/short": 16, "image/en/short": 12, "image/es/short": 6}
    grouped = Batches(Mixed(), CLIPS, Phase(name="p", steps=60, batches="families", group_share=0.5), 500, 0)
    assert grouped.sizes() == {"video/en/short by families": 24, "video/en/short": 32, "image/en/short": 12}


def test_a_clip_shows_its_views_in_turn_from_the_plain_one_on():
    assert {view for b in made() for view in b.views} == {0}
    shown = {}
    for batch in Batches(MadeUpCaptions(), CLIPS, Phase(name="p", steps=40), 9, 0, views=3):
        for row, view in zip(batch.rows, batch.views, strict=True):
            shown.setdefault(row, []).append(view)
    assert all(views == [n % 3 for n in range(10)] for views in shown.values()) and len(shown) == 36


def test_long_and_short_captions_by_their_share():
    class Long(MadeUpCaptions):
        def texts(self, language, text_class, split):
            return [(f"{i}{text_class}", c, f"{text_class} {t}") for i, c, t in super().texts(language, "short", split)]

    for share, least, most in ((0.0, 0, 0), (0.25, 60, 90), (1.0, 300, 300)):
        batches = Batches(Long(), CLIPS, Phase(name="p", steps=300, long_share=share), 8, 0)
        long = [b.kind == "video/en/long" for b in batches]
        assert least <= sum(long) <= most
        assert all(c.startswith(b.kind.split("/")[2]) for b in batches for c in b.captions)
        assert len(batches.sizes()) == len(set(long))


@pytest.mark.parametrize(("share", "only"), [(0.0, "short"), (1.0, "long")])
def test_a_length_that_is_never_drawn_comes_where_there_is_no_other(share, only):
    """Videos have both lengths, images the one that is not asked for."""
    other = "long" if only == "short" else "short"

    class Both(Mixed):
        def texts(self, language, text_class, split):
            found = super().texts(language, "short", split)
            return found if text_class == other else [t for t in found if self.media(t[1]) == "video"]

    batches = Batches(Both(), CLIPS, Phase(name="p", steps=60, long_share=share), 4, 0)
    came = {b.kind for b in batches}
    assert came == {f"video/en/{only}", f"image/en/{other}"} == set(batches.sizes())
    assert {kind for kind in batches.pools if batches.comes(kind)} == {tuple(kind.split("/")) for kind in came}


def test_a_group_of_neighbours_is_an_anchor_and_seven_others():
    """Clips are confused within their dozen: eight of one come together, the ninth is another anchor."""
    batches = Batches(MadeUpCaptions(), CLIPS, Phase(name="p", steps=40, batches="neighbours"), 9, 0)
    dozen = {row: np.arange(12) + row // 12 * 12 for row in range(36)}
    batches.neighbours = {EN: {row: near[near != row] for row, near in dozen.items()}}
    found = [[row // 12 for row in batch.rows] for batch in batches]
    assert all(len(set(rows[:8])) == 1 for rows in found) and any(rows[8] != rows[0] for rows in found)


@pytest.mark.parametrize(("pairs", "rows"), [(6, set(range(12))), (0, set(range(36)))])
def test_clips_without_a_family_come_by_families_only_where_there_are_none(pairs, rows):
    class Pairs(MadeUpCaptions):
        def family(self, clip):
            number = int(clip[1:])
            return str(number // 2) if number < 2 * pairs else f"alone {number}"

    batches = Batches(Pairs(), CLIPS, Phase(name="p", steps=40, batches="families"), 4, 0)
    assert {row for batch in batches for row in batch.rows} == rows
