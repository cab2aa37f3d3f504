"""Run benchmarks and write benchmarks/results/latest.json: `python -m benchmarks [NAME ...]`.

A benchmark is a file bench_NAME.py with `run() -> list[dict]` of name, ours, baseline, unit, equal, how_equal, spread.
Both sides of a row run interleaved in this one process; `ratio` above 1 means ours is better.
"""

import importlib
import json
import os
import pkgutil
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import benchmarks

RESULTS = Path(__file__).parent / "results" / "latest.json"


def machine() -> str:
    models = [x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    return f"{platform.machine()}, {models[0] if models else 'unknown'}, {os.cpu_count()} cores"


def main(wanted: list[str]) -> None:
    known = {
        m.name.removeprefix("bench_"): m.name for m in pkgutil.iter_modules(benchmarks.__path__) if "bench_" in m.name
    }
    unknown = set(wanted) - set(known)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    common = {
        "machine": machine(),
        "versions": {p: version(p) for p in ("torch", "transformers", "decord", "av", "pyarrow")},
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks {' '.join(wanted)}".strip(),
    }
    rows = []
    for name in wanted or sorted(known):
        for row in importlib.import_module(f"benchmarks.{known[name]}").run():
            row["ratio"] = round(row["baseline"] / row["ours"], 3)
            told = (
                f"{row['name']:<32} {row['ratio']:>7.2f}x  ours {row['ours']:.4g} {row['unit']}, equal {row['equal']}"
            )
            print(told, flush=True)
            rows.append({**row, **common})
    kept = json.loads(RESULTS.read_text()) if wanted and RESULTS.exists() else []
    fresh = {row["name"] for row in rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([r for r in kept if r["name"] not in fresh] + rows, indent=1) + "\n")
    print(f"bench: {len(rows)} rows in {RESULTS}")


if __name__ == "__main__":
    main(sys.argv[1:])
