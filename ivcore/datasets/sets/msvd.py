"""MSVD, the test split: 670 videos with some forty captions each, every one of them a query."""

from ivcore.datasets.cards import SEE_PAGE, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

CAPTIONS, TEST = "captions_msvd.json", "test_list.txt"
CARD = Card(
    name="MSVD",
    split="test",
    files={
        CAPTIONS: "11bc68e8441438121c1c7321526ef1d1fc6553d3b801baef1cca1d3429e306b1",
        TEST: "95eacd1fddb1d88cd7144267913ef02d0ecb8cc94a88bc484035433a2d8f9c7a",
    },
    content="09ec86a4904fba6b514772029cd2fb3dded408280255ce94186e72e4f662a518",
    num_videos=670,
    num_captions=27763,
    caption_rule="each",
    text_len=64,
    frames=4,
    licence=SEE_PAGE,
    citation="Chen, Dolan: Collecting Highly Parallel Data for Paraphrase Evaluation, ACL 2011",
    url="https://github.com/layer6ai-labs/xpool/tree/main/data/MSVD",
)


def read(files: Files) -> Annotation:
    """Captions by YOUTUBE_START_END; clips of one YouTube video are one family."""
    captions = files.json(CAPTIONS)
    names = files.text(TEST).split()
    return Annotation([Clip(f"{n}.avi", captions=tuple(captions[n]), family=n.rsplit("_", 2)[0]) for n in names])


recipe, root, rows = published(__name__, CARD, read)
