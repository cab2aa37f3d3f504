"""The commands about weights: import, export, parity."""

import sys
from pathlib import Path
from typing import Any

import click

from flows.command import Example, common, emit, say


@click.command("import", cls=Example, example="iv import InternVideo2-stage2_1b-224p-f4.pt --model s2-1B --out s2-1B")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE...")
@click.option("--model", required=True, help="Form and size: s2-1B, clip-B14, ...")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make; it must not be there yet.")
@click.option("--frames", type=click.IntRange(min=1), help="Frames the model takes; else the size's own number.")
@click.option("--pixels", type=click.IntRange(min=1), help="Edge of a frame in pixels; else the size's own.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="A tokenizer.json, or a folder with one.")
@click.option("--dry-run", is_flag=True, help="Print the account of keys and write nothing.")
@common
def import_command(
    sources: tuple[Path, ...],
    model: str,
    out: Path | None,
    frames: int | None,
    pixels: int | None,
    tokenizer: Path | None,
    dry_run: bool,
    home: str | None,
    as_json: bool,
) -> None:
    """Published weights (SOURCE: .pth, .pt, .bin, .safetensors, an index of shards, a folder) -> a model folder.

    What each file is shows in its names: s2; for clip an s2 or tower file, a text file and the delta.
    """
    from ivcore.checkpoints.account import listing, table
    from ivcore.checkpoints.importing import import_weights
    from ivcore.errors import UserError

    if (out is None) != dry_run:
        raise UserError("give either --out FOLDER or --dry-run" + (", not both" if dry_run else ""))
    record = import_weights(sources, model, out, frames, pixels, tokenizer)
    if as_json:
        emit({"out": out, **record})
    else:
        say(listing(record) if dry_run else table(record))
        if out is not None:
            say(f"imported {model} into {out}; every key is in {out / 'import.json'}")
    if any(bins["missing"] or bins["unexpected"] for bins in record["counts"].values()):
        raise UserError(f"these files cannot be imported as {model}: keys are missing or unexpected, see above")


@click.command("export", cls=Example, example="iv export s2-1B --out s2-1B.safetensors")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to make; it must not be there yet.")
@click.option("--layout", type=click.Choice(["upstream"]), default="upstream", show_default=True, help="Whose names.")
@click.option("--pth", is_flag=True, help="Plain tensors by torch.save instead of safetensors.")
@common
def export_command(folder: Path, out: Path, layout: str, pth: bool, home: str | None, as_json: bool) -> None:
    """A model folder -> one file under upstream's names; importing it gives the same bytes back."""
    from ivcore.checkpoints.exporting import export

    found = export(folder, out, pth)
    if as_json:
        return emit({"out": out, **found})
    say(f"exported {found['entries']} entries, {found['bytes']:,} bytes, to {out}")


@click.command("parity", cls=Example, example="iv parity recordings --tolerance 1e-4")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--tolerance", type=float, help="Largest relative error allowed; else each case's own bound.")
@common
def parity_command(folder: str, tolerance: float | None, home: str | None, as_json: bool) -> None:
    """Run the models against numbers recorded from upstream's own code, found in FOLDER."""
    from ivcore.parity.run import run_cases

    results = run_cases(Path(folder))
    cases: list[dict[str, Any]] = [
        {
            "case": f"{r.topic}/{r.case}",
            "max_abs": r.max_abs,
            "max_rel": r.max_rel,
            "ok": bool(r.ok and (tolerance is None or r.max_rel <= tolerance)),
            "note": r.note,
        }
        for r in results
    ]
    built = [c for c in cases if not c["note"].startswith("not built")]
    good = sum(c["ok"] for c in built)
    if as_json:
        emit({"ok": good == len(built), "cases": cases})
    else:
        for c in cases:
            mark = ("ok " if c["ok"] else "BAD") if c in built else "-- "
            say(f"{mark}  {c['case']:<60} abs {c['max_abs']:.2e}  rel {c['max_rel']:.2e}  {c['note']}".rstrip())
        left = f"; {len(cases) - len(built)} recorded cases are not built, marked --" if cases != built else ""
        say(f"{good} of {len(built)} cases agree{left}")
    if good < len(built):
        sys.exit(1)
