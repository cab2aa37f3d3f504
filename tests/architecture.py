"""The import graph of ivcore, tasks and flows, lazy imports included: `python -m tests.architecture`.

A room is a folder of `ivcore`, or a file on its top floor; `tasks` and `flows` are a room each. `ORDER` is the house
from the top to the ground floor: a room imports those below it.
"""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
ORDER = (
    "flows",
    "tasks",
    "steps",
    "parity",
    "search",
    "verdict",
    "train",
    "retrieval",
    "features",
    "checkpoints",
    "losses",
    "models",
    "text",
    "datasets",
    "video",
    "store",
    "config",
    "names",
    "errors",
    "ivcore",  # __version__, and nothing else
)
Graph = Mapping[str, set[str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the three packages and its file."""
    paths = (path for package in ("flows", "tasks", "ivcore") for path in (root / package).rglob("*.py"))
    return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in sorted(paths)}


def imports(root: Path = ROOT) -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports anywhere, also inside functions."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {f if f in known else node.module for f in full}
        graph[name] = {f for f in found if f in known and f != name}
    return graph


def room(module: str) -> str:
    """The room of a module: `ivcore.video.decoders.pyav` -> `video`, `tasks.step` -> `tasks`."""
    first, *rest = module.split(".")
    return rest[0] if first == "ivcore" and rest else first


def arrows(graph: Graph) -> set[tuple[str, str]]:
    """Which room imports which."""
    return {(room(a), room(b)) for a, others in graph.items() for b in others if room(a) != room(b)}


def upwards(graph: Graph, order: Iterable[str] = ORDER) -> list[tuple[str, str]]:
    """(module, imported) of every import that goes to a room above, or to or from a room the order does not know."""
    floor = {name: n for n, name in enumerate(order)}
    pairs = ((a, b) for a, others in graph.items() for b in sorted(others) if room(a) != room(b))
    return [(a, b) for a, b in pairs if not {room(a), room(b)} <= set(floor) or floor[room(a)] > floor[room(b)]]


def rings(graph: Graph) -> list[list[str]]:
    """Groups of modules that import each other in a ring, the largest first."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        reach[start] = seen
    left = {m for m in graph if m in reach[m]}
    out = []
    while left:
        one = min(left)
        ring = {m for m in left if m in reach[one] and one in reach[m]}
        left -= ring
        out.append(sorted(ring))
    return sorted(out, key=len, reverse=True)


def main() -> None:
    """Print the graph: a line a room, then what is wrong with it, then the figures."""
    graph = imports()
    drawn, wrong, circles = arrows(graph), upwards(graph), rings(graph)
    for name in ORDER:
        files = sum(room(m) == name for m in graph)
        below = [other for other in ORDER if (name, other) in drawn]
        print(f"{name:<12} {files:>3} files  -> {' '.join(below)}")
    for a, b in wrong:
        print(f"upwards: {a} imports {b}")
    for ring in circles:
        print(f"ring: {' '.join(ring)}")
    print(f"architecture: {len(ORDER)} rooms, {len(drawn)} arrows, {len(wrong)} upwards, {len(circles)} rings")


if __name__ == "__main__":
    main()
