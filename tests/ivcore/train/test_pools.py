"""What would stop a phase in its middle, or the phase after it, is said before the first step, in one line."""

import pytest

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.errors import UserError
from ivcore.train import pools
from ivcore.train.job import Job


class FewSpanish:
    """24 training clips with an English caption, 7 of them with a Spanish one as well; nothing else, no split val."""

    def texts(self, language, text_class, split):
        count = {"en": 24, "es": 7}.get(language, 0) if (text_class, split) == ("short", "train") else 0
        return [(f"t{i}{language}", f"c{i:02}", f"{language} {i}") for i in range(count)]

    def family(self, clip):
        return str(int(clip[1:]) // 3)

    def media(self, clip):
        return "video"

    def weight(self, clip):
        return 1


CLIPS = [f"c{i:02}" for i in range(24)]
BOTH = {"languages": ("en", "es")}


def phase(name="p", **fields):
    return Phase(**{"name": name, "steps": 40, **fields})


def check(kind="s2", s2=None, clip=None, at=0, **train):
    """Before phase `at` of the stage `kind` begins."""
    stages = {
        name: StageConfig(**{"batch_size": 8, "phases": (phase(name),), **(given or {})})
        for name, given in (("s2", s2), ("clip", clip))
    }
    train = TrainConfig(**stages, **train)
    stage = getattr(train, kind)
    job = Job.model_construct(kind=kind, train=train, stage=stage, phase=stage.phases[at])
    pools.check(job, FewSpanish(), CLIPS)


def test_what_can_be_trained_passes():
    check()
    check(s2={"phases": (phase(**BOTH),)})
    check(s2={"accumulate": 2, "phases": (phase(batches="families"),)}, ranks=2)


@pytest.mark.parametrize(
    "stage, train, said",
    [
        (
            {"phases": (phase(**BOTH),), "accumulate": 2},
            {},
            r"p: a batch of 7 clips .*ranks 1 times 2 .*video/es/short",
        ),
        ({"phases": (phase(**BOTH),)}, {"ranks": 2}, r"p: a batch of 7 clips cannot be divided by train\.ranks 2"),
        ({"phases": (phase(**BOTH),), "grad_cache_chunk": 4}, {}, r"a batch of 7 clips cannot be divided"),
        ({"phases": (phase(batches="families", **BOTH),), "accumulate": 4}, {}, "es/short by families"),
        ({"phases": (phase(vtm=1.0),), "accumulate": 8}, {}, "leaves one clip in each, and matching needs two"),
        ({"phases": (phase(languages=("zh",)),)}, {}, "no two training clips have captions in zh"),
        ({"phases": (phase(steps=29),)}, {}, "p: a warm-up of 30 steps in a phase of 29, .* set warmup_steps to 2,"),
        ({"phases": (phase(steps=0, epochs=5.0, warmup_epochs=6.0),)}, {}, "a warm-up of 18 steps in a phase of 15"),
        ({"validate_every": 5}, {}, "validate_every is 5, but the split val has no short caption in en"),
    ],
)
def test_each_is_one_line_with_its_cure_and_comes_before_the_first_phase(stage, train, said):
    with pytest.raises(UserError, match=said) as found:
        check("s2", s2=stage, **train)
    assert "\n" not in str(found.value)
    later = {**stage, "phases": (phase("first", steps=60), *stage.get("phases", (phase(),)))}
    for given in ({"s2": later}, {"clip": stage}):  # hours later: the next phase of s2, and clip's
        with pytest.raises(UserError, match=said):
            check("s2", **given, **train)


def test_phases_that_are_over_are_not_looked_at_again():
    with pytest.raises(UserError, match="no two training clips"):
        check("s2", s2={"phases": (phase(languages=("zh",)), phase("next"))}, at=0)
    check("clip", s2={"phases": (phase(languages=("zh",)),)})
    check("s2", s2={"phases": (phase(languages=("zh",)), phase("next"))}, at=1)
