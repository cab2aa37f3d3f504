"""Where a table of scores comes from: manifest, frames, features, and every training phase behind the checkpoint."""

import collections
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store

MAX_POINTS = 120  # of a curve in the report


@dataclass(frozen=True)
class Scored:
    """Scores of one model, of one arm and seed, and what stands behind them."""

    arm: str
    seed: int
    model: str
    scores: Artifact
    store: Store

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The scores' record."""
        return self.scores.record()

    def input(self, name: str) -> Artifact:
        """An input of the scores: manifest, features or checkpoint."""
        return self.store.get(self.record["inputs"][name])

    @functools.cached_property
    def frames(self) -> Artifact | None:
        """The frames that the features were made from, if the store still has them."""
        id = self.input("features").record()["inputs"].get("frames")
        kind, _, key = (id or "/").partition("/")
        return self.store.find(kind, key) if id else None

    @functools.cached_property
    def phases(self) -> list[dict[str, Any]]:
        """The record of every training phase, first to last, s2's before clip's; each names its `kind`."""
        records = [self.input("checkpoint").record()]
        while "init" in records[0]["inputs"]:
            records.insert(0, self.store.get(records[0]["inputs"]["init"]).record())
        return records

    def size(self) -> str | None:
        """The model's size by name, if the records say."""
        return next((p["config"]["model"]["size"] for p in reversed(self.phases) if "model" in p["config"]), None)

    def costs(self) -> dict[str, float | None]:
        """Training cost of everything behind the model, and of its own stage alone (clip stands on s2's trunk)."""
        own = [p for p in self.phases if p["kind"] == self.model]
        return {
            "train_gflop": _sum(p["facts"].get("train_gflop") for p in self.phases),
            "train_cpu_s": _sum(p.get("cpu_s") for p in self.phases),
            "train_own_gflop": _sum(p["facts"].get("train_gflop") for p in own),
            "train_own_cpu_s": _sum(p.get("cpu_s") for p in own),
        }

    def index_ms(self) -> dict[str, float | None]:
        """Wall-clock milliseconds a video takes on its way into the index: all, decoding, the trunk, the embedding.

        Of a step that found some of its clips in the store, a video is one that it made; None where it found them all.
        """
        features = self.input("features").record()
        steps = {"decode": self.frames.record() if self.frames else None, "trunk": features}
        ms = {n: _a_row(r) if r else None for n, r in steps.items()}
        ms["embed"] = self.record["measured"].get("embed_ms_per_video")
        whole = _sum(ms.values()) if None not in ms.values() else None
        return {"index_ms_per_video": whole, **{f"index_ms_{name}": value for name, value in ms.items()}}

    def languages(self) -> list[str]:
        """Languages that the model's own stage was trained on; empty when a record (imported weights) does not say."""
        return sorted({language for p in self._taught("languages") for language in p["languages"]})

    def text_classes(self) -> list[str]:
        """Caption lengths that the model's own stage was trained on; empty when a record does not say."""
        own = [p["long_share"] for p in self._taught("long_share")]
        return [n for n, there in (("short", any(x < 1 for x in own)), ("long", any(x > 0 for x in own))) if there]

    def _taught(self, field: str) -> list[dict[str, Any]]:
        own = [_phase(p) for p in self.phases if p["kind"] == self.model]
        return own if all(field in p for p in own) else []


def datasets(runs: list[Scored]) -> dict[str, str]:
    """What the data set behind each manifest is called, by the id; two of one name and seed get their keys."""
    manifests = {(run.seed, run.input("manifest").id): run.input("manifest") for run in runs}
    called = {id: m.record()["config"].get("dataset", "unknown") for (_, id), m in manifests.items()}
    often = collections.Counter((seed, called[id]) for seed, id in manifests)
    twice = {name for (_, name), num in often.items() if num > 1}
    return {id: f"{called[id]} {m.key[:6]}" if called[id] in twice else called[id] for (_, id), m in manifests.items()}


def decoding(runs: list[Scored]) -> list[dict[str, Any]]:
    """What decoded the frames behind the runs, what could not be, and what each decoder took for the same clips."""
    out = []
    for artifact in {run.frames.id: run.frames for run in runs if run.frames}.values():
        record = artifact.record()
        told = {name: record["facts"].get(name, {}) for name in ("decoders", "reasons")}
        told |= {"damaged": record["facts"].get("damaged", 0), "decoder_ms": record["measured"].get("decoder_ms", {})}
        out.append({"frames": artifact.id, **told})
    return out


def trace(store: Store, name: str, scores: Artifact) -> Scored:
    """The scores named ARM.SEED.MODEL."""
    arm, seed, model = name.split(".")
    return Scored(arm, int(seed), model, scores, store)


def _sum(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(sum(known)), 3) if known else None


def _a_row(record: dict[str, Any]) -> float | None:
    """Milliseconds a row that a step made."""
    made = record["measured"].get("clips_made", record["rows_ok"])
    return round(1e3 * record["wall_s"] / made, 3) if made else None


def _phase(record: dict[str, Any]) -> dict[str, Any]:
    """What a phase was told to do: its recipe, and over that what the checkpoint itself says."""
    return {**record["config"].get("phase", {}), **record["facts"].get("condition", {})}


def condition(scored: Scored) -> str:
    """In words: which negatives the contrastive and the matching loss of s2 saw. What matching gains hangs on it."""
    phases = [_phase(p) for p in scored.phases if p["kind"] == "s2"]
    grouped = [p for p in phases if p.get("batches", "random") != "random" and p.get("group_share", 1) > 0]
    contrast = [p for p in grouped if p.get("vtc", 1) > 0 and p.get("trainable", "all") != "fusion"]
    match_saw = _kinds(p for p in grouped if p.get("vtm", 0) > 0)
    contrast_saw = _kinds(p for p in contrast if not _hides_scenes(p))
    both = [kind for kind in contrast_saw if kind in match_saw]
    if not any(p.get("vtm", 0) > 0 for p in phases):
        words = "the matching head was not trained"
    elif match_saw and not contrast_saw:
        how = "clips of the same scene were left out of its softmax" if contrast else "it did not train on them"
        words = f"matching learned from hard negatives ({' and '.join(match_saw)}), similarity did not: {how}"
    elif both:
        words = f"similarity and matching both learned from hard negatives ({' and '.join(both)})"
        for name, saw in (("similarity", contrast_saw), ("matching", match_saw)):
            if more := [kind for kind in saw if kind not in both]:
                words += f", {name} from {' and '.join(more)}, too"
    elif match_saw:
        words = f"similarity learned from one kind of hard negatives ({' and '.join(contrast_saw)}), "
        words += f"matching from another ({' and '.join(match_saw)})"
    elif contrast_saw:
        words = f"similarity learned from hard negatives ({' and '.join(contrast_saw)}), matching did not"
    else:
        words = "neither learned from hard negatives: all batches were random"
    stale = "; the text tower moved after matching was last trained, so read this arm by sim"
    return words + (stale if _is_stale(phases) else "")


def _hides_scenes(phase: dict[str, Any]) -> bool:
    """Whether the batches are scenes with their swaps and the contrastive loss does not see these."""
    return phase.get("batches") == "families" and phase.get("vtc_negatives", "all") != "all"


def _kinds(phases: Iterable[dict[str, Any]]) -> list[str]:
    """What the hard negatives of these phases are."""
    called = {"families": "swaps of a scene", "neighbours": "clips that are confused"}
    return list(dict.fromkeys(called[p["batches"]] for p in phases))


def negatives(scored: Scored) -> Iterator[dict[str, Any]]:
    """By phase of the model's own stage, in words: its batches, and whom each loss saw as a wrong partner."""
    for record in scored.phases:
        phase = _phase(record)
        if record["kind"] != scored.model or not phase:
            continue
        share = f" in {100 * phase['group_share']:.0f} %" if phase.get("group_share", 1) < 1 else ""
        batches = {
            "random": "random clips",
            "families": f"scenes with their swaps{share}",
            "neighbours": f"clips that are confused{share}",
        }
        contrast = phase.get("vtc", 1) > 0 and phase.get("trainable", "all") != "fusion"
        hidden = phase.get("vtc_negatives", "all") != "all"
        others, one = "all other clips of the batch", "one other clip of it, the likelier the more alike"
        even = f", {100 * phase['even_negatives']:.0f} % of them at random" if phase.get("even_negatives") else ""
        yield {
            "arm": scored.arm,
            "model": scored.model,
            "phase": phase.get("name", record["facts"].get("phase")),
            "steps": record["facts"].get("steps"),
            "batches": batches[phase.get("batches", "random")],
            "contrast": "off" if not contrast else others + (" but those of the same scene" if hidden else ""),
            "matching": f"{one}{even}" if phase.get("vtm", 0) > 0 else "off",
        }


def matching_stands(scored: Scored) -> bool:
    """Whether the matching head was trained, and the text tower under it has not moved since."""
    phases = [_phase(p) for p in scored.phases if p["kind"] == "s2"]
    return any(p.get("vtm", 0) > 0 for p in phases) and not _is_stale(phases)


def _is_stale(phases: list[dict[str, Any]]) -> bool:
    last = max((n for n, p in enumerate(phases) if p.get("vtm", 0) > 0), default=len(phases))
    return any(p.get("trainable", "all") in ("all", "vtc_head") for p in phases[last + 1 :])


def frozen(scored: Scored) -> dict[str, Any]:
    """What stood still: counts, names and digests of the last phase, and how much each phase behind it trained."""
    last = scored.phases[-1]["facts"]
    return {
        "model": scored.model,
        "phase": last.get("phase"),
        "total": last.get("params_total"),
        "trained": last.get("params_trained"),
        "trained_names": last.get("trained_names", []),
        "digest_before": last.get("digest_before"),
        "digest_after": last.get("digest_after"),
        "phases": [
            {
                "model": p["kind"],
                "phase": p["facts"].get("phase"),
                "total": p["facts"].get("params_total"),
                "trained": p["facts"].get("params_trained"),
                "unmoved": p["facts"].get("digest_before") == p["facts"].get("digest_after"),
                "steps": p["facts"].get("steps"),
                "samples": p["facts"].get("samples"),
                "train_gflop": p["facts"].get("train_gflop"),
                "cpu_s": p.get("cpu_s"),
                "wall_s": p.get("wall_s"),
            }
            for p in scored.phases
        ],
    }


def curves(scored: Scored) -> Iterator[dict[str, Any]]:
    """Losses of the model's own stage over all its phases, thinned to means: {phase, name, step [...], value [...]}."""
    before = 0
    for record in scored.phases:
        if record["kind"] != scored.model:
            continue
        path = scored.store.path(record["kind"], record["key"]) / "curves.parquet"
        rows = list(schemas.rows(path, schemas.CURVES)) if path.is_file() else []
        for name in sorted({r["name"] for r in rows if r["name"].startswith("loss")}):
            points = [(before + r["step"], r["value"]) for r in rows if r["name"] == name]
            width = -(-len(points) // MAX_POINTS)
            groups = [points[n : n + width] for n in range(0, len(points), width)]
            yield {
                "arm": scored.arm,
                "seed": scored.seed,
                "model": scored.model,
                "phase": record["facts"].get("phase", ""),
                "name": name,
                "step": [g[-1][0] for g in groups],
                "value": [round(sum(v for _, v in g) / len(g), 5) for g in groups],
            }
        before += record["facts"].get("steps", 0)
