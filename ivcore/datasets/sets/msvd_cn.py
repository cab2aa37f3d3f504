"""MSVD-CN: Chinese captions of the videos of MSVD; the test split of MSVD."""

import collections

from ivcore.datasets.cards import SEE_PAGE, Card, Files
from ivcore.datasets.published import Annotation, Clip, published
from ivcore.datasets.sets import msvd

CAPTIONS, NAMES = "msvd_cn_captions_release_utf8.csv", "youtube_mapping.txt"
CARD = Card(
    name="MSVD-CN",
    split="test",
    files={
        CAPTIONS: "80d1d00fbf256920659b54c4c1781c8a6ce6b6ac2c00e67365cd0b0da986c2f4",
        NAMES: "28ad09f8b345eab9722cfeb2e43fe011689c9a1bdb2a10eb75f3801cc24508d7",
        msvd.TEST: msvd.CARD.files[msvd.TEST],
    },
    content="df921a0b7b6104f43e527eeb5bd1e86a317bfd4e13a9626348e3965ede5757e6",
    num_videos=670,
    num_captions=3980,
    caption_rule="each",
    text_len=64,
    frames=4,
    languages=("zh",),
    licence=SEE_PAGE,
    citation="videos: Chen, Dolan, ACL 2011; Chinese captions: see the page",
    url="https://github.com/mcislab-machine-learning/MSVD-CN",
    notes="Text length and frames as for MSVD; there is no published score of s2 here.",
)


def read(files: Files) -> Annotation:
    """Columns id, video_id (vidN.mp4), sentence; the mapping says which YOUTUBE_START_END a vidN is."""
    names = files[msvd.TEST][0].read_text(encoding="utf-8").split()
    pairs = (line.split() for line in files.text(NAMES).splitlines())
    of = {number: name for name, number in pairs}
    captions: dict[str, list[str]] = collections.defaultdict(list)
    for row in files.csv(CAPTIONS):
        captions[of[row["video_id"].removesuffix(".mp4")]].append(row["sentence"])
    return Annotation([Clip(f"{n}.avi", captions=tuple(captions[n]), family=n.rsplit("_", 2)[0]) for n in names])


recipe, root, rows = published(__name__, CARD, read)
