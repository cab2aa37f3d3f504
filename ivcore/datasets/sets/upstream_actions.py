"""Action recognition in upstream's own format: a json list of videos whose caption is the name of a class."""

import dataclasses

from ivcore.datasets.cards import Files
from ivcore.datasets.published import Annotation, published
from ivcore.datasets.sets import upstream
from ivcore.datasets.sets.kinetics400 import labelled

CARD = dataclasses.replace(
    upstream.CARD,
    name="Upstream's json, action recognition",
    task="classification",
    caption_rule="class",
    main_score="top1",
    notes='[{"video": path, "caption": name of its class}, ...]; the classes are the distinct captions.',
)


def read(files: Files) -> Annotation:
    """One class a video."""
    return labelled(
        [(path, upstream.texts(entry, "caption", where)[0]) for entry, [path, *_], where in upstream.entries(files)]
    )


recipe, root, rows = published(__name__, CARD, read)
