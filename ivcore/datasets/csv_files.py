"""A csv file as people have it to rows: separator and quotes by its first line, rows that a quote swallows noticed."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

SEPARATORS = (",", "\t", ";", "|")
UTF16 = (b"\xff\xfe", b"\xfe\xff")
log = logging.getLogger("iv.datasets")

Row = dict[Any, Any]  # by name; None: fields beyond the first line


def read(
    file: Path, known: str = "", several: tuple[str, ...] = (), ending: tuple[str, ...] = (), strict: bool = True
) -> list[Row]:
    """Rows by the names of the first line.

    As with csv.DictReader, fields beyond the first line stand under None, and those that lack are None.

    Args:
        known: a column that every such file has; it shows the separator and the quotes.
        several: columns that may stand more than once; the field is then the list of all their values.
        ending: how a value of `known` ends; a line inside a quote with such a value is a row that the quote swallowed.
        strict: refuse what is open to more than one reading, and take quotes behind a blank for quotes.

    Raises:
        ValueError: two columns of one name, or a quote left open, with the line.
    """
    lines = list(io.StringIO(text_of(file), newline=""))
    head = next((line for line in lines if line.strip()), "")
    quote = "'" if known and f"'{known}'" in head else '"'
    separator = max(SEPARATORS, key=lambda mark: _fits(head, known, mark, quote))
    blanks = strict and any(f"{separator} {quote}" in line for line in lines)  # else a name may begin with one
    reader = csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=blanks, strict=strict)
    names: list[str] = []
    rows: list[Row] = []
    begin = spread = 0
    try:
        for fields in reader:
            first, begin = begin, reader.line_num
            if names and fields:
                rows.append(_row(names, fields))
                spread += begin > first + 1
                place = names.index(known) if known in names else len(fields)
                for n, line in enumerate(lines[first + 1 : begin] if strict else (), first + 2):
                    inner = [field.strip() for field in line.split(separator)]
                    if len(inner) > place and inner[place].lower().endswith(ending or ("\0",)):
                        raise ValueError(f"line {first + 1} has a quote that is not closed and swallows line {n}")
            elif fields:
                names = _names(fields, several) if strict else fields
    except csv.Error as e:
        raise ValueError(f"line {reader.line_num}: {e}") from None
    if spread:
        log.warning(
            "%s: %d rows in %d lines; %d of them go over several lines", file, len(rows), len(lines) - 1, spread
        )
    return rows


def text_of(file: Path) -> str:
    """The file's text: UTF-8, or UTF-16 where its first two bytes say so."""
    content = file.read_bytes()
    return content.decode("utf-16" if content[:2] in UTF16 else "utf-8-sig")


def _fits(head: str, known: str, separator: str, quote: str) -> tuple[bool, int]:
    names = [name.strip() for name in next(csv.reader([head], delimiter=separator, quotechar=quote), [])]
    return known in names, len(names)


def _names(fields: list[str], several: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in fields]
    for name in names:
        if name and names.count(name) > 1 and name not in several:
            raise ValueError(f"line 1 has the column {name!r} twice; take one out, or give it another name")
    return names


def _row(names: list[str], fields: list[str]) -> Row:
    row: Row = dict.fromkeys(names)
    for name, value in zip(names, fields):
        if names.count(name) == 1:
            row[name] = value
        elif value:
            row[name] = [*(row[name] or []), value]
    if len(fields) > len(names):
        row[None] = fields[len(names) :]
    return row
