"""The command that searches: search."""

import click

from flows.command import Example, common, emit, say


@click.command("search", cls=Example, example='iv search "someone cuts an onion" --top 5')
@click.argument("sentence")
@click.option("--variant", help="s2/sim, s2/match or clip/sim; else what the report advises for the language.")
@click.option("--language", default="en", show_default=True, help="Language of the sentence.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Clips to show.")
@click.option("--k", type=click.IntRange(min=1), default=16, show_default=True, help="Candidates s2/match looks at.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only clips of this split; else all.")
@common
def search_command(
    sentence: str,
    variant: str | None,
    language: str,
    top: int,
    k: int,
    split: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """The clips of a finished workspace that fit SENTENCE best, by the models trained there.

    SENTENCE may be -: then each line of standard input is one, and the models are loaded once for all of them.
    """
    import sys
    from pathlib import Path

    from ivcore.errors import UserError

    lines = [line.strip() for line in sys.stdin] if sentence == "-" else [sentence]
    sentences = [line for line in lines if any(letter.isalnum() for letter in line)]
    if not sentences:
        raise UserError(f"SENTENCE {sentence!r} has no word; say what to look for, e.g. 'someone cuts an onion'")
    from flows.cli_advise import report_of
    from ivcore.search.query import VARIANTS, advised, search
    from ivcore.store.artifacts import Store
    from tasks.runtime import default_home

    place = Path(home or default_home())
    why = "as asked"
    if variant is None:
        variant, why = advised(report_of(place), sentences[0], language)
    if variant not in VARIANTS:
        raise UserError(f"--variant {variant!r} is none of {', '.join(VARIANTS)}")
    found = search(Store(place), variant, sentences, top, k, split or "")
    if as_json:
        each = [{"sentence": asked, "clips": clips} for asked, clips in zip(sentences, found, strict=True)]
        return emit({"variant": variant, "why": why, **(each[0] if sentence != "-" else {"found": each})})
    say(f"{variant} ({why})")
    for asked, clips in zip(sentences, found, strict=True):
        if sentence == "-":
            say(asked)
        for row in clips:
            window = "" if row["start_s"] is None else f"  {row['start_s']:g}-{row['end_s'] or 'end'} s"
            say(f"{row['rank']:>3}  {row['score']:>8.4f}  {row['path']}{window}")
