"""The manifest: equal videos once."""

import json
import shutil
from pathlib import Path

from ivcore import steps
from ivcore.config import DataConfig, FramesConfig
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from tests.ivcore.video.made_up import numbered


def test_equal_videos_are_kept_once_with_the_captions_of_all(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    numbered(root / "a.mp4")
    shutil.copy(root / "a.mp4", root / "b.mp4")
    numbered(root / "c.mp4", 30)
    given = [("a.mp4", "train", "en", "one"), ("b.mp4", "test", "es", "uno"), ("c.mp4", "train", "en", "two")]
    rows = [{"path": p, "split": s, "language": lang, "caption": c} for p, s, lang, c in given]
    rows.append({"path": "a.mp4", "split": "train", "start_s": 1.0, "clip_id": "late", "caption": "its end"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = DataConfig(dataset="folder", root=str(root), annotations=str(tmp_path / "rows.json"), max_failed_share=0.1)
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    found = {r["clip_id"]: r["error"] for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
    assert found == {"a.mp4": "duplicate", "b.mp4": None, "c.mp4": None, "late": None}  # what is scored stays
    captions = schemas.rows(manifest.path / "captions.parquet", schemas.CAPTIONS)
    of = {c["caption"]: c["clip_id"] for c in captions}
    assert of == {"one": "b.mp4", "uno": "b.mp4", "two": "c.mp4", "its end": "late"}
    record = manifest.record()
    assert record["facts"]["duplicates"] == 1 and (record["rows_in"], record["rows_failed"]) == (4, 1)
    frames = steps.run(steps.decode(store, data, FramesConfig(), manifest), store)  # a duplicate is no fault
    assert frames.rows == 3 and frames.record()["facts"]["reasons"] == {"duplicate": 1}
