"""Scenes and their swaps: which objects a clip shows, and which clips are near-twins.

A family is a base scene and swaps of it: two objects exchange one attribute, so the words stay and the bindings change.
No two splits share a bag of words, hence no scene of one split is a scene, or a swap of a scene, of another.
"""

import random
from dataclasses import dataclass

from ivcore.config import SyntheticConfig
from ivcore.errors import UserError

COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS = {
    2: ("left", "right", "up", "down", "still", "grow", "shrink"),
    4: ("left", "right", "up", "down", "still"),
}
ATTRIBUTES = ("colour", "shape", "motion")  # as they stand in an object
EVAL_FAMILY = 4  # a scene and three swaps
TRAIN_FAMILY = {2: 2, 4: 4}
PATIENCE = 5_000  # draws in a row that gave nothing new

Object = tuple[str, str, str]  # colour, shape, motion
Scene = tuple[Object, ...]  # in reading order: top, bottom; or the grid row by row
Bag = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Clip:
    """A scene with its place in the data set."""

    clip_id: str
    split: str
    family: str
    scene: Scene


def swap(scene: Scene, attribute: str, i: int, j: int) -> Scene:
    """The scene with `attribute` (or "position", which is all three) exchanged between objects i and j.

    >>> swap((("red", "cross", "up"), ("blue", "circle", "still")), "colour", 0, 1)
    (('blue', 'cross', 'up'), ('red', 'circle', 'still'))
    """
    objects = [list(o) for o in scene]
    for n, name in enumerate(ATTRIBUTES):
        if attribute in (name, "position"):
            objects[i][n], objects[j][n] = objects[j][n], objects[i][n]
    return tuple((o[0], o[1], o[2]) for o in objects)


def bag(scene: Scene) -> Bag:
    """What is left of a scene when one forgets which word belongs to which object; the same for all its swaps."""
    return tuple(tuple(sorted(column)) for column in zip(*scene))


def clips(config: SyntheticConfig) -> list[Clip]:
    """Every clip of the data set, test first; the test and val scenes do not depend on how many train clips there are.

    Raises:
        UserError: val_clips or test_clips is no multiple of 4, or there are not enough scenes for the clips asked for.
    """
    out: list[Clip] = []
    taken: set[Bag] = set()
    for split, num in (("test", config.test_clips), ("val", config.val_clips)):
        if num % EVAL_FAMILY:
            raise UserError(f"{split}_clips = {num} does not fill families of {EVAL_FAMILY}; give a multiple of it")
        out += _split(config, split, [EVAL_FAMILY] * (num // EVAL_FAMILY), taken)
        taken |= {bag(clip.scene) for clip in out}
    size = TRAIN_FAMILY[config.objects]
    num_families = round(config.sibling_share * config.train_clips / size)
    alone = max(config.train_clips - num_families * size, 0)
    sizes = [size] * num_families + [1] * alone
    return out + _split(config, "train", sizes, taken)[: config.train_clips]


def _split(config: SyntheticConfig, split: str, sizes: list[int], taken: set[Bag]) -> list[Clip]:
    """Families of these sizes, no scene twice; families of val and test differ from each other in more than a swap."""
    rng = random.Random(f"{config.seed} {config.objects} {split}")
    seen: set[Scene] = set()
    bags = set(taken)
    out: list[Clip] = []
    for n, size in enumerate(sizes):
        for _ in range(PATIENCE):
            scenes = _family(rng, config.objects, size)
            if bag(scenes[0]) not in bags and seen.isdisjoint(scenes):
                break
        else:
            asked = f"{split}_clips = {getattr(config, f'{split}_clips')}"
            raise UserError(f"no new scene of {config.objects} objects after {len(out)}: {asked} is too many")
        seen.update(scenes)
        if split != "train":
            bags.add(bag(scenes[0]))
        ids = [f"{split}-{len(out) + i:05d}" for i in range(size)]
        family = f"{split}-family-{n:05d}" if size > 1 else ids[0]
        out += [Clip(clip_id, split, family, scene) for clip_id, scene in zip(ids, scenes)]
    return out


def _family(rng: random.Random, num_objects: int, size: int) -> list[Scene]:
    """A base scene and `size` - 1 swaps of it, all different."""
    scene = _scene(rng, num_objects)
    kinds = [*ATTRIBUTES, "position"] if num_objects == 2 else list(ATTRIBUTES)
    out = [scene]
    for attribute in rng.sample(kinds, size - 1):
        pairs = [(i, j) for j in range(num_objects) for i in range(j) if swap(scene, attribute, i, j) not in out]
        out.append(swap(scene, attribute, *rng.choice(pairs)))
    return out


def _scene(rng: random.Random, num_objects: int) -> Scene:
    """A random scene: colours differ; with two objects shapes and motions differ too, with four each has two kinds."""
    while True:
        colours = rng.sample(COLOURS, num_objects)
        shapes = [rng.choice(SHAPES) for _ in range(num_objects)]
        motions = [rng.choice(MOTIONS[num_objects]) for _ in range(num_objects)]
        if len(set(shapes)) > 1 and len(set(motions)) > 1:
            return tuple(zip(colours, shapes, motions))
