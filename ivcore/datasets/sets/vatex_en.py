"""VATEX in English: the usual 1500 test videos, which are half of its validation part, ten captions each."""

from ivcore.datasets.cards import SEE_PAGE, UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE, TEST = "vatex_validation_v1.0.json", "test1k5_sec_list.txt"
CARD = Card(
    name="VATEX, English",
    split="1500 test videos (half of the validation part)",
    files={FILE: UNVERIFIED, TEST: "20f22ab90daa192f17c18672bf4afc36f6a62c8edf2e55d0dce7f57fb11111dc"},
    num_videos=1500,
    num_captions=15000,
    caption_rule="each",
    text_len=32,
    frames=4,
    licence=SEE_PAGE,
    citation="Wang, Wu, Chen, Li, Wang, Wang: VATEX, ICCV 2019",
    url="https://eric-xw.github.io/vatex-website/",
    notes="The list of test videos (from github.com/jpthu17/EMCL) is verified, the captions are not.",
)


def read(files: Files, field: str = "enCap") -> Annotation:
    """A list of videos, YOUTUBE_START_END each, with enCap and chCap; those of the test list, in its order."""
    captions = {v["videoID"]: v[field] for v in files.json(FILE)}
    names = files.text(TEST).split()
    return Annotation([Clip(f"{n}.mp4", captions=tuple(captions[n])) for n in names])


recipe, root, rows = published(__name__, CARD, read)
