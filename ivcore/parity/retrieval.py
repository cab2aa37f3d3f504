"""The comparisons of the topic s2_retrieval: a whole evaluation as upstream ran it, and its recall figures.

Shapes: V videos, T texts, k candidates. Upstream's tables are softmaxes of the scores, which rank alike. Where a figure
hangs on how ties are ordered, ours is the lowest possible one, which the recording holds beside upstream's own.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ivcore.parity.recording import Check, Recording
from ivcore.parity.s2 import build_full
from ivcore.retrieval.heads import dsl, dual_weights, matched
from ivcore.retrieval.ranking import compute, ranks
from ivcore.retrieval.rerank import rerank, unite

RECALLS = ("r1", "r5", "r10")


@torch.no_grad()
def retrieval(rec: Recording) -> Iterator[Check]:
    """Features; then of every case similarities, dual softmax, matching of each direction's candidates, recall."""
    model = build_full(rec.config["model"], rec.state())
    tokens, pooled = model.encode_video(rec.get("video"))
    mask = rec.get("attention_mask")
    states = model.encode_text(rec.get("input_ids"), mask)
    ours = {"image_feats": tokens[:, None], "pooled_image_feats": pooled[:, None], "text_feats": states}
    for name, value in {**ours, "text_atts": mask}.items():
        yield from rec.checks(name, {"": value})
    video = torch.nn.functional.normalize(model.project_video(pooled), dim=-1)
    text = torch.nn.functional.normalize(model.project_text(states), dim=-1)
    standard = rec.config["evaluation_config"]["evaluation"]
    for case in rec.config["cases"]:
        name, num, options = case["name"], case["num_texts"], {**standard, **case["evaluation"]}
        sim = video @ text[:num].T  # [V, T]
        over_videos, over_texts = dual_weights(text[:num], video)
        dual = {"i2t": dsl(sim, over_videos), "t2i": dsl(sim.T, over_texts)}
        plain = {"i2t": sim, "t2i": sim.T}
        chosen_by = dual if options.get("use_dsl_for_match") else plain
        top = {d: s.topk(min(options["k_test"], s.shape[1])).indices.numpy() for d, s in chosen_by.items()}
        pairs = unite(top["t2i"], top["i2t"])
        logits = rerank(model, states[:num], mask[:num], lambda v: tokens[torch.from_numpy(v)], pairs)
        every = torch.full((len(video), num), float("nan"))
        every[pairs[:, 1], pairs[:, 0]] = logits
        match = {
            "i2t": matched(top["i2t"], every.gather(1, torch.from_numpy(top["i2t"])), num),
            "t2i": matched(top["t2i"], every.T.gather(1, torch.from_numpy(top["t2i"])), len(video)),
        }
        yield from rec.checks(name, {"cosine": sim, **{f"raw_{d}_match": s for d, s in match.items()}})
        for head, scores in (("sim", plain), ("dsl", dual), ("match", match)):
            tables = {d: s.softmax(dim=1) for d, s in scores.items()}
            yield from rec.checks(name, {f"{d}_{head}": s for d, s in tables.items()})
            theirs = next(v for k, v in rec.results[name].items() if k.startswith(f"{name}_{head}"))
            truth = rec.config["ground_truth"][case["ground_truth"]]
            found = recall(tables["i2t"], tables["t2i"], truth, case.get("num_prompts", 1))
            bounds = rec.results.get(f"{name}/tie_bounds", {}).get(head, {})
            for side, (lowest, highest) in found.items():
                if bounds:
                    yield f"{name}/{head}/{side}/lowest", lowest, bounds[f"{side}_worst"]
                    yield f"{name}/{head}/{side}/highest", highest, bounds[f"{side}_best"]
                firm = [n for n in range(len(RECALLS)) if lowest[n] == highest[n]]
                yield f"{name}/{head}/{side}", [lowest[n] for n in firm], [theirs[f"{side}_{RECALLS[n]}"] for n in firm]
    for number, (given, theirs) in enumerate(zip(rec.config["itm_eval_inputs"], rec.results["itm_eval_table"])):
        i2t, t2i = (rec.get(given[d].removeprefix("in/")) for d in ("i2t", "t2i"))
        for side, (lowest, _) in recall(i2t, t2i, given, 1).items():
            yield f"itm_eval/{number}/{side}", lowest, [theirs[f"{side}_{r}"] for r in RECALLS]


def recall(
    i2t: Tensor, t2i: Tensor, truth: dict[str, Any], num_prompts: int
) -> dict[str, tuple[list[float], list[float]]]:
    """R@1, 5, 10 (0-100, two decimals) of scores [V, T] and [T, V] by direction, ties against the truth and for it.

    Args:
        truth: img2txt and txt2img, from a query's number to the number or numbers that are true; none is a miss.
        num_prompts: texts that stand for one, in a row; their scores are averaged first.
    """
    i2t = i2t.unflatten(1, (-1, num_prompts)).mean(dim=2)
    t2i = t2i.unflatten(0, (-1, num_prompts)).mean(dim=1)
    out = {}
    for side, scores, asked in (("v2t", i2t, truth["img2txt"]), ("t2v", t2i, truth["txt2img"])):
        lists = [asked[str(q)] if isinstance(asked, dict) else asked[q] for q in range(len(scores))]
        answers = [a if isinstance(a, list) else [a] for a in lists]
        there = [q for q, mine in enumerate(answers) if mine]
        is_true = torch.zeros(len(there), scores.shape[1], dtype=torch.bool)
        for n, q in enumerate(there):
            is_true[n, answers[q]] = True
        raised = torch.where(is_true, scores[there].nextafter(torch.tensor(float("inf"))), scores[there])
        share = len(there) / len(scores)
        found = [compute(ranks(s, is_true)) for s in (scores[there], raised)]
        out[side] = tuple([round(f[r] * share, 2) for r in RECALLS] for f in found)
    return out  # type: ignore[return-value]
