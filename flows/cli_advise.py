"""The commands about choosing: advise, grid."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from flows.command import Example, common, emit, say


@click.command("advise", cls=Example, example="iv advise --task retrieval --languages en,zh --latency-ms 50")
@click.option("--task", default="retrieval", show_default=True, help="retrieval, multiple_choice or classification.")
@click.option("--languages", default="en", show_default=True, help="Languages of the queries, e.g. en,zh.")
@click.option("--text-length", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens of a query.")
@click.option("--direction", type=click.Choice(["t2v", "v2t"]), default="t2v", show_default=True, help="Text to video?")
@click.option("--latency-ms", type=float, help="Most a query may take, 95th percentile.")
@click.option("--memory-gb", type=float, help="Memory there is, GB of 10^9 bytes.")
@click.option("--index-gb", type=float, help="Most the index may take.")
@click.option("--videos", type=click.IntRange(min=1), default=1000, show_default=True, help="Videos in the index.")
@click.option("--device", help="cpu, cuda, or a GPU by name, e.g. A100-40GB; else whatever was measured.")
@click.option("--size", help="Model size, e.g. S14; else every one.")
@click.option("--dataset", help="Data set to go by, measured or published; else the run's own.")
@common
def advise_command(
    task: str,
    languages: str,
    text_length: int,
    direction: str,
    latency_ms: float | None,
    memory_gb: float | None,
    index_gb: float | None,
    videos: int,
    device: str | None,
    size: str | None,
    dataset: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Which variant to take (model, size, head, k, frames), and the rows that say so.

    Measured rows of the newest report answer; where nothing was measured, published and computed ones, marked so.
    """
    from ivcore.verdict.adviser import Ask, answer
    from tasks.runtime import default_home

    asked = tuple(x.strip() for x in languages.split(",") if x.strip())
    limits = (latency_ms, memory_gb, index_gb, videos, device, size, dataset)
    found = answer(Ask(task, asked, text_length, direction, *limits), report_of(home or default_home()))
    if as_json:
        emit(dataclasses.asdict(found))
    else:
        say(told(found))


def report_of(home: Path | str) -> Any:
    """report.json of a workspace, or None."""
    from ivcore.errors import WorkError

    path = Path(home) / "reports" / "latest" / "report.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as e:
        raise WorkError(f"{path} is damaged ({e}); run iv report again") from None


def told(found: Any) -> str:
    """An answer in lines: the variant, why, and the rows; what one row lacks is left empty."""
    from ivcore.verdict.adviser import name

    head = f"take   {name(found.variant)}" if found.variant else "take   nothing: no variant fits"
    lines = [head, f"basis  {found.basis}", *(f"- {line}" for line in found.because)]
    if found.rows:
        lines += ["", f"{found.basis} variants, best first{' (* on the front)' if found.basis == 'measured' else ''}"]
        lines.append(
            f"{'':<2}{'variant':<42}{'R@1':>7}{'ms p50':>9}{'ms p95':>9}{'KiB/video':>11}{'MB':>8}  arm, machine"
        )
    for r in found.rows:
        on = "*" if found.basis == "measured" and r in found.front else ""
        cells = (r.get("query_ms_p50"), r.get("query_ms_p95"), _kib(r.get("index_bytes_per_video")), r.get("peak_mb"))
        numbers = "".join(f"{'' if v is None else f'{v:.1f}':>{w}}" for v, w in zip(cells, (9, 9, 11, 8)))
        where = ", ".join(str(x) for x in (r.get("arm"), r.get("machine"), r.get("dataset")) if x)
        lines.append(f"{on:<2}{name(r):<42}{r['r1']:>7.1f}{numbers}  {where}")
    if found.computed:
        lines += ["", "computed, nobody measured it"]
    for c in found.computed:
        gb = (c["weight_bytes"] + c["activation_bytes"]) / 1e9
        lines.append(
            f"  {name(c):<42}{c['query_gflop']:>9.1f} GFLOP a query of {c['n_videos']} videos, {gb:.1f} GB, "
            f"{_kib(c['index_bytes_per_video']):.0f} KiB a video; fits {', '.join(c['fits']) or 'no GPU we list'}"
        )
    lines += [f"refused  {r['variant']}: {r['why']}" for r in found.refused]
    return "\n".join(lines)


def _kib(size: float | None) -> float | None:
    return None if size is None else size / 1024
