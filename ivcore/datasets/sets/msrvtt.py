"""MSR-VTT, the 1k-A test split: a thousand videos with one caption each."""

from ivcore.datasets.cards import SEE_PAGE, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE = "MSRVTT_JSFUSION_test.csv"
CARD = Card(
    name="MSR-VTT 1k-A",
    split="1k-A test (JSFusion)",
    files={FILE: "e61144b312c8a2fc2126f96504c981f8c23c05b3ba9655a56e2af50ac8a4b16a"},
    content="9756f2bd989ebf17db6fc295971b47f6418482d57c28dfac617058ef12d6c766",
    num_videos=1000,
    num_captions=1000,
    caption_rule="each",
    text_len=32,
    frames=4,
    licence=SEE_PAGE,
    citation="Xu, Mei, Yao, Rui: MSR-VTT, CVPR 2016; the split: Yu, Kim, Kim: A Joint Sequence Fusion Model, ECCV 2018",
    url="https://github.com/layer6ai-labs/xpool/tree/main/data/MSRVTT",
    notes="995 of the 1000 sentences are distinct, so five queries or more are ambiguous.",
)


def read(files: Files) -> Annotation:
    """Columns key, vid_key, video_id, sentence."""
    return Annotation([Clip(f"{row['video_id']}.mp4", captions=(row["sentence"],)) for row in files.csv(FILE)])


recipe, root, rows = published(__name__, CARD, read)
