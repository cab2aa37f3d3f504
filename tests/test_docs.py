"""What the pages name exists: files, modules, links, commands; and every module of ivcore says what it is."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from flows.cli import main
from tests.architecture import modules

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?<![\w/.-])(?:ivcore|flows|tasks|tests|benchmarks|docs)/[\w./-]*\w(?:\.\w+)?/?")
MODULE = re.compile(r"(?<![\w./-])ivcore(?:\.[A-Za-z_]\w*)+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:\.venv/bin/)?\biv ([a-z][a-z0-9_-]*)")
MADE = ("docs/api",)  # by `make docs`
RECIPE = "add-a-"  # pages that tell how to write a file: what they write is not there yet

pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def test_the_patterns_find_what_they_should():
    assert FILE.findall("see `ivcore/train/gone.py` and ivcore/runs") == ["ivcore/train/gone.py", "ivcore/runs"]
    assert MODULE.findall("python -m ivcore.store.table_docs") == ["ivcore.store.table_docs"]
    assert COMMAND.findall(".venv/bin/iv serch x") == ["serch"]


@pages
def test_named_files_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    if page.name.startswith(RECIPE):
        text = re.sub(r"[Ww]rite `[^`]+`|sizes/small\.toml", "", text)
    named = {n for n in FILE.findall(text) if not n.startswith(MADE) and "NAME" not in n}
    assert [n for n in sorted(named) if not (ROOT / n).exists()] == []


@pages
def test_named_modules_exist(page: Path):
    known = modules()

    def there(name: str) -> bool:
        """A module, or something in one."""
        parent, _, last = name.rpartition(".")
        if name in known:
            return True
        return parent in known and hasattr(importlib.import_module(parent), last)

    assert [n for n in sorted(set(MODULE.findall(page.read_text(encoding="utf-8")))) if not there(n)] == []


@pages
def test_relative_links_resolve(page: Path):
    links = [n.partition("#")[0] for n in LINK.findall(page.read_text(encoding="utf-8"))]
    assert [n for n in links if n and "://" not in n and not (page.parent / n).exists()] == []


@pages
def test_named_commands_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*FENCE.findall(text), *CODE.findall(FENCE.sub("", text))])
    assert sorted(set(COMMAND.findall(code)) - set(main.commands)) == []


def test_the_index_names_every_page():
    index = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PAGES[2:] if f"docs/{p.name}" not in index] == []


def test_every_module_begins_with_what_it_is():
    empty = [n for n, path in modules().items() if n.startswith("ivcore") and not path.read_text().startswith('"""')]
    assert empty == []


def test_the_tool_of_the_api_pages_is_in_the_lock():
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    assert any(line.startswith("pdoc") for line in group)
    assert re.search(r"^pdoc==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
