"""Captions of a manifest, with the clips they belong to; clips whose file cannot be used are left out."""

import collections
from typing import Any

from ivcore.store import schemas
from ivcore.store.artifacts import Artifact


class Captions:
    """Captions and clips of a manifest artifact, without the clips whose file cannot be used."""

    def __init__(self, manifest: Artifact) -> None:
        columns = ["clip_id", "split", "family", "media", "weight", "error"]
        clips = schemas.read(manifest.path / "manifest.parquet", schemas.MANIFEST, columns).to_pylist()
        self.task: str = manifest.record()["facts"].get("card", {}).get("task", "retrieval")
        self._clips: dict[str, dict[str, Any]] = {c["clip_id"]: c for c in clips if c["error"] is None}
        self._pairs: dict[str, list[tuple[str, bool]]] = collections.defaultdict(list)
        path = manifest.path / "pairs.parquet"
        for pair in schemas.rows(path, schemas.PAIRS) if path.exists() else ():
            if pair["clip_id"] in self._clips:
                self._pairs[pair["caption_id"]].append((pair["clip_id"], pair["relevant"]))
        captions = list(schemas.rows(manifest.path / "captions.parquet", schemas.CAPTIONS))
        self._options = [c for c in captions if not c["clip_id"]]
        for caption in captions:  # a caption of several clips goes to the next one where its own cannot be used
            others = self._pairs.get(caption["caption_id"], ())
            if caption["clip_id"] and caption["clip_id"] not in self._clips and others:
                caption["clip_id"] = others[0][0]
        self._captions = [c for c in captions if c["clip_id"] in self._clips]

    def also(self, caption_id: str) -> list[str]:
        """clip_ids that a caption is true of, beside the one of `texts`; most have none."""
        return [clip_id for clip_id, relevant in self._pairs.get(caption_id, ()) if relevant]

    def options(self, language: str, text_class: str) -> list[tuple[str, str, list[tuple[str, bool]]]]:
        """Classes and options in order of caption_id: (caption_id, caption, [(clip_id, whether it is true of it)])."""
        return [
            (c["caption_id"], c["caption"], self._pairs.get(c["caption_id"], []))
            for c in self._options
            if (c["language"], c["text_class"]) == (language, text_class)
        ]

    def texts(self, language: str, text_class: str, split: str) -> list[tuple[str, str, str]]:
        """(caption_id, clip_id, caption) in the order of caption_id."""
        return [
            (c["caption_id"], c["clip_id"], c["caption"])
            for c in self._captions
            if (c["language"], c["text_class"]) == (language, text_class)
            and self._clips[c["clip_id"]]["split"] == split
        ]

    def clips(self, split: str) -> list[str]:
        """clip_ids of a split, in manifest order."""
        return [clip_id for clip_id, clip in self._clips.items() if clip["split"] == split]

    def media(self, clip_id: str) -> str:
        """video or image."""
        return str(self._clips[clip_id]["media"])

    def weight(self, clip_id: str) -> int:
        """Times the clip comes by in an epoch."""
        return int(self._clips[clip_id]["weight"])

    def family(self, clip_id: str) -> str:
        """The family of a clip: itself and its near-twins."""
        return str(self._clips[clip_id]["family"])
