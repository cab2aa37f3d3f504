"""The commands about data sets: what there is, what a card says, whether a file is the one meant; and a first csv."""

from typing import Any

import click

from flows.command import Example, common, emit, say


@click.command("datasets", cls=Example, example="iv datasets msrvtt --check MSRVTT_JSFUSION_test.csv")
@click.argument("name", required=False)
@click.option("--check", type=click.Path(), help="Annotation file or folder: compare it with the card of NAME.")
@click.option("--allow-unverified", is_flag=True, help="Read annotations of unknown checksum.")
@common
def datasets_command(
    name: str | None, check: str | None, allow_unverified: bool, home: str | None, as_json: bool
) -> None:
    """List the data sets, or show the card of NAME: task, split, files and checksums, counts, licence, citation."""
    from ivcore.datasets.published import counts
    from ivcore.errors import UserError
    from ivcore.names import module, names

    package = "ivcore.datasets.sets"
    if name is None and check is not None:
        raise UserError(f"--check {check!r} needs the NAME of a data set: {', '.join(names(package))}")
    cards = {n: module(package, n).CARD.facts() for n in ([name] if name else names(package))}
    found = counts(name, check, allow_unverified) if name and check else {}
    if as_json:
        return emit({"datasets": cards, **({"check": found} if check else {})})
    if name is None:
        return _list(cards)
    for field, value in cards[name].items():
        for n, line in enumerate(_lines(value)):
            say(f"{'' if n else field:<14}{line}")
    if check:
        say(f"\n{check}: as the card says; {found['videos']} videos, {found['captions']} captions")


@click.command("init", cls=Example, example="iv init /videos")
@click.argument("folder", type=click.Path())
@common
def init_command(folder: str, home: str | None, as_json: bool) -> None:
    """Write FOLDER/captions.csv, a row for each video found, its caption to fill in."""
    from ivcore.config import DataConfig
    from ivcore.datasets import template

    file, videos, refused = template.write(DataConfig(dataset="folder", root=folder))
    if as_json:
        return emit({"captions": str(file), "videos": len(videos), "refused": refused})
    for line in refused:
        click.echo(f"passed over  {line}")
    click.echo(f"{file}: {len(videos)} videos; fill in the captions, a row a caption (a video may have several rows)")
    click.echo(f"then         iv run mine --set data.root={folder}")


def _list(cards: dict[str, dict[str, Any]]) -> None:
    rows = [("data set", "task", "split", "videos", "captions", "languages", "checksum")]
    for name, card in cards.items():
        counts = ("" if card[n] is None else f"{card[n]:,}" for n in ("num_videos", "num_captions"))
        rows.append((name, card["task"], card["split"], *counts, ",".join(card["languages"]), card["checksum"]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{k}  {v}" for k, v in value.items()]
    return [", ".join(value) if isinstance(value, list) else "" if value is None else str(value)]
