"""The account of an import: every entry in exactly one bin, and where each of the model's tensors is from.

| bin        | what became of the entry                                                        |
| ---------- | ------------------------------------------------------------------------------- |
| loaded     | taken as it is, under its own name                                              |
| converted  | renamed, resized or merged into another; `why` says which                       |
| ignored    | left out on purpose; `why` says why                                             |
| missing    | a tensor of the model that no file has: an error                                |
| unexpected | an entry the model has no place for, or of another shape: an error              |

All of this is settled on the meta device, from names and shapes; no value is read.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ivcore.checkpoints.sources import Source
from ivcore.errors import UserError
from ivcore.models.base import TIED
from ivcore.models.convert import Converted

BINS = ("loaded", "converted", "ignored", "missing", "unexpected")
Convert = Callable[[Mapping[str, Tensor]], Converted]


@dataclass
class Recipe:
    """How one tensor of the model is made: these entries of this source, through its conversion."""

    source: Source
    convert: Convert
    entries: list[str]
    name: str  # under which the conversion gives it
    meta: Tensor

    def make(self) -> Tensor:
        """Read the entries and convert them."""
        return self.convert({entry: self.source.weights.read(entry) for entry in self.entries}).state[self.name]


@dataclass
class Account:
    """What `settle` found. A row has file, key, bin, and where it applies `to` and `why`."""

    files: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)
    recipes: dict[str, Recipe] = field(default_factory=dict)  # name in the saved model -> how it is made
    twins: list[tuple[str, Recipe]] = field(default_factory=list)  # (kept name, a second copy that must equal it)
    started: dict[str, str] = field(default_factory=dict)  # names the size file gives a value, and why

    def add(self, file: str, key: str, bin: str, to: str = "", why: str = "") -> None:
        """Put one entry into its bin."""
        row = {"file": file, "key": key, "bin": bin, "to": to, "why": why}
        self.rows.append({name: value for name, value in row.items() if value or name == "file"})

    def counts(self) -> dict[str, dict[str, int]]:
        """Entries by file and bin; what no file has is under the file ''."""
        found: dict[str, Counter[str]] = {}
        for row in self.rows:
            found.setdefault(row["file"], Counter())[row["bin"]] += 1
        return {file: {bin: counter[bin] for bin in BINS} for file, counter in found.items()}

    def refuse(self, model: str) -> None:
        """Raise UserError, one line naming files and keys, if anything is missing or unexpected."""
        parts = []
        for bin in ("missing", "unexpected"):
            rows = [row for row in self.rows if row["bin"] == bin]
            named = [" ".join(filter(None, (r["key"], f"({r['why']})" if "why" in r else ""))) for r in rows]
            if named:
                files = sorted({row["file"] for row in rows} - {""})
                where = f" in {', '.join(files)}" if files else ""
                more = f" and {len(named) - 4} more" if len(named) > 4 else ""
                parts.append(f"{len(named)} {bin}{where}: {', '.join(named[:4])}{more}")
        if parts:
            raise UserError(
                f"{', '.join(self.files)} cannot be imported as {model}; {'; '.join(parts)}; give the whole files as "
                "published (--dry-run lists every key)"
            )


def settle(
    parts: list[tuple[Source, Convert]], expected: Mapping[str, Tensor], started: Mapping[str, str] | None = None
) -> Account:
    """Give every entry its bin.

    Args:
        parts: the files in the order in which they apply; later ones override.
        expected: the model's entries on the meta device, the second names of tied tensors included.
        started: names that begin at a value of the size file when no file has them, with the reason.

    Raises:
        UserError: naming the file, for half a LoRA branch or a position table of no whole number of frames.
    """
    account = Account([str(source.path) for source, _ in parts])
    converted = []
    for source, convert in parts:
        try:
            converted.append(convert(source.weights.meta))
        except UserError as error:
            raise UserError(f"{source.path}: {error}") from None
    owner = {name: i for i, found in enumerate(converted) for name in found.state}
    for i, ((source, convert), found) in enumerate(zip(parts, converted, strict=True)):
        feeding: dict[str, list[str]] = {}
        for entry, name in found.kept.items():
            feeding.setdefault(name, []).append(entry)
        for entry, reason in found.dropped.items():
            account.add(source.label, entry, "ignored", why=reason)
        _plain(account, source, convert)
        for name, entries in feeding.items():
            recipe = Recipe(source, convert, entries, name, found.state[name])
            _place(account, recipe, expected, parts[owner[name]][0] if owner[name] != i else None)
    _tie(account, expected)
    for name in expected:
        if name in TIED or name in account.recipes or any(row.get("to") == name for row in account.rows):
            continue
        if started and name in started:
            account.started[name] = started[name]
        else:
            account.add("", name, "missing")
    return account


def _place(account: Account, recipe: Recipe, expected: Mapping[str, Tensor], later: Source | None) -> None:
    """Bin the entries that feed one tensor."""
    file, name = recipe.source.label, recipe.name
    if later is not None:
        for entry in recipe.entries:
            account.add(file, entry, "ignored", why=f"replaced by {later.label}")
        return
    wanted = expected.get(name)
    if wanted is None:
        for entry in recipe.entries:
            account.add(file, entry, "unexpected")
        return
    if wanted.shape != recipe.meta.shape:
        why = f"shape {list(recipe.meta.shape)}, the model has {list(wanted.shape)}"
        for entry in recipe.entries:
            account.add(file, entry, "unexpected", to=name, why=why)
        return
    account.recipes[name] = recipe
    for entry in recipe.entries:
        given, how = recipe.source.weights.meta[entry], []
        if len(recipe.entries) > 1:
            how.append("LoRA merged")
        elif entry != name:
            how.append("renamed")
        if len(recipe.entries) == 1 and given.shape != recipe.meta.shape:
            how.append(f"resized {list(given.shape)} to {list(recipe.meta.shape)}")
        if how:
            account.add(file, entry, "converted", to=name, why=" and ".join(how))
        else:
            account.add(file, entry, "loaded")


def _tie(account: Account, expected: Mapping[str, Tensor]) -> None:
    """Of a tied pair the saved model has one name; a second copy is checked, a lone one takes the other's name."""
    for copy, kept in TIED.items():
        if copy not in expected or copy not in account.recipes:
            continue
        recipe = account.recipes.pop(copy)
        (row,) = [r for r in account.rows if r["key"] in recipe.entries and r["file"] == recipe.source.label]
        if kept in account.recipes:
            account.twins.append((kept, recipe))
            row.update(bin="ignored", why=f"the same tensor as {kept}")
        else:
            account.recipes[kept] = recipe
            row.update(bin="converted", to=kept, why="the other name of a tied tensor")


def _plain(account: Account, source: Source, convert: Convert) -> None:
    """Entries that are no tensors: fine where the name is left out anyway."""
    for entry, kind in source.weights.plain.items():
        try:
            reason = convert({entry: torch.empty(0, device="meta")}).dropped.get(entry)
        except UserError:
            reason = None
        if reason:
            account.add(source.label, entry, "ignored", why=reason)
        else:
            account.add(source.label, entry, "unexpected", why=f"of type {kind}, not a tensor")


def table(record: Mapping[str, Any]) -> str:
    """The counts and reasons of an import record, for people."""
    width = max(24, *(len(source["file"]) for source in record["sources"]))
    lines = [f"{'file':<{width}}  {'role':<10}" + "".join(f"{bin:>11}" for bin in BINS)]
    rows = [(s["file"], s["role"]) for s in record["sources"]]
    for file, role in [*rows, *([("", "")] if "" in record["counts"] else [])]:
        counts = record["counts"].get(file, dict.fromkeys(BINS, 0))
        shown = file or "(no file)"
        lines.append(f"{shown:<{width}}  {role:<10}" + "".join(f"{counts[bin]:>11}" for bin in BINS))
    reasons = Counter((row["file"], row.get("why", "")) for row in record["keys"] if row["bin"] == "ignored")
    lines += [f"ignored    {count:>5}  {file}: {why}" for (file, why), count in sorted(reasons.items())]
    changed = Counter((row["file"], row.get("why", "")) for row in record["keys"] if row["bin"] == "converted")
    lines += [f"converted  {count:>5}  {file}: {why}" for (file, why), count in sorted(changed.items())]
    lines += [f"started    {name}: {why}" for name, why in record["started"].items()]
    return "\n".join(lines)


def listing(record: Mapping[str, Any]) -> str:
    """Every key with its bin, then the table."""
    lines = []
    for row in record["keys"]:
        to = f" -> {row['to']}" if "to" in row else ""
        why = f"  ({row['why']})" if "why" in row else ""
        lines.append(f"{row['bin']:<10}  {row['file'] or '(no file)'}  {row['key']}{to}{why}")
    return "\n".join([*lines, table(record)])
