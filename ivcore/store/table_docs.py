"""docs/data.md: every Parquet table and the first questions, made from the schemas by `make docs`.

python -m ivcore.store.table_docs
"""

from ivcore.store import schemas
from ivcore.store.catalog import QUESTIONS


def markdown() -> str:
    """Every table as a page: docs/data.md is this text."""
    lines = [
        "# Tables",
        "",
        "Made from `ivcore/store/schemas.py` by `make docs`. Name and version travel inside each file.",
        "",
    ]
    for table in (*schemas.TABLES, schemas.features(65, 96, 128, "float16"), schemas.views(65, 96, "float16")):
        lines += [
            f"## {table.name}, version {table.version}",
            "",
            table.doc,
            "",
            "| column | type | meaning |",
            "| --- | --- | --- |",
        ]
        lines += [f"| {c.name} | {c.type}{', may be null' if c.nullable else ''} | {c.doc} |" for c in table.columns]
        lines.append("")
    lines += ["# Questions", "", "`iv sql` alone lists every table and column; `iv sql --json` is for scripts.", ""]
    for question, sql in QUESTIONS.items():
        lines += [f"{question}:", "", "```sql", sql, "```", ""]
    return "\n".join(lines[:-1])


if __name__ == "__main__":
    print(markdown())
