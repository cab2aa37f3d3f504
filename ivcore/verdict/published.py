"""What the authors published, as rows of the report's shape: `source` is "published", and nothing is measured here."""

import tomllib
from importlib import resources
from typing import Any

DIRECTIONS = ("t2v", "v2t")
DTYPE = "bfloat16"  # upstream evaluates in bf16


def table() -> dict[str, Any]:
    """published.toml as it is: sources, retrieval, classification."""
    return tomllib.loads((resources.files("ivcore.verdict") / "published.toml").read_text(encoding="utf-8"))


def rows(dataset: str | None = None) -> list[dict[str, Any]]:
    """One row a model, data set, language and direction; all data sets, or that one.

    >>> [r["r1"] for r in rows("msrvtt") if (r["model"], r["size"]) == ("s2", "1B")]
    [51.9, 50.9]
    """
    found = table()
    about = ("model", "size", "frames", "head", "source")
    out = []
    for task in ("retrieval", "classification"):
        for entry in found[task]:
            for name, values in entry.items():
                if name in about or dataset not in (None, name):
                    continue
                row = {
                    "task": "multiple_choice" if name == "ssv2_mc" else task,
                    "dataset": name,
                    **{n: entry[n] for n in about[:4]},
                    "language": "zh" if name.endswith("_zh") else "en",
                    "dtype": DTYPE,
                    "source": "published",
                    "from": found["sources"][entry["source"]]["title"],
                    "url": found["sources"][entry["source"]]["url"],
                }
                if task == "retrieval":
                    out += [{**row, "direction": d, "r1": v} for d, v in zip(DIRECTIONS, values)]
                else:
                    metric = "map" if name == "charades" else "top1"
                    out.append({**row, "direction": "v2t", "metrics": {metric: values[0]}, "r1": values[0]})
    return out
