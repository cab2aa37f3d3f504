"""Config values before they are checked: TOML files, and dicts that are laid over each other."""

import json
import tomllib
from pathlib import Path

from ivcore.config.branch import PACKAGE, Json
from ivcore.errors import UserError

RUNS = PACKAGE / "runs"
SIZES = PACKAGE / "models" / "sizes"


def read_toml(path: Path) -> dict[str, Json]:
    """A TOML file as a dict; UserError naming file and line when it does not parse."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no config file at {path}; give a path or a named run") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is not TOML: {e}") from None


def named_values(name: str) -> dict[str, Json]:
    """The values of a named run, over those of the run that it begins from; UserError listing the known ones."""
    path = RUNS / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"no run is named {name!r}; known: {', '.join(sorted(p.stem for p in RUNS.glob('*.toml')))}")
    values = read_toml(path)
    return merge(named_values(values["run"]), values) if values.get("run") else values


def size_values(name: str) -> dict[str, Json]:
    """The values of models/sizes/NAME.toml; a file with a `base` holds what differs from that size."""
    own = read_toml(SIZES / f"{name}.toml")
    return merge(size_values(own.pop("base")), own) if "base" in own else own


def merge(base: dict[str, Json], over: dict[str, Json]) -> dict[str, Json]:
    """`over` on top of `base`, table by table; a list replaces a list."""
    out = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merge(out[name], value) if both else value
    return out


def override(values: dict[str, Json], name: str, value: Json) -> dict[str, Json]:
    """A copy of `values` with the dotted `name` set; an item of a list is reached by its own `name` or its index."""
    head, _, rest = name.partition(".")
    if not rest:
        return {**values, head: value}
    inner = values.get(head, {})
    if isinstance(inner, (list, tuple)):
        item, _, rest = rest.partition(".")
        spots = [i for i, x in enumerate(inner) if item == str(i) or (isinstance(x, dict) and x.get("name") == item)]
        if not spots or not rest:
            raise UserError(f"{head} has no item {item!r} to set {rest or 'a field'} of")
        return {**values, head: [override(x, rest, value) if i == spots[0] else x for i, x in enumerate(inner)]}
    if not isinstance(inner, dict):
        raise UserError(f"{head} is a value, not a table: it has no {rest}")
    return {**values, head: override(inner, rest, value)}


def toml_value(text: str) -> Json:
    """What is written behind --set NAME=: a TOML value; a bare word is a string."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def flatten(values: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    """Dotted names to plain values, e.g. {"train.clip.lr": 0.0015}; items of named lists go by their name."""
    out: dict[str, Json] = {}
    for name, value in values.items():
        if isinstance(value, (list, tuple)) and value and all(isinstance(x, dict) and "name" in x for x in value):
            value = {x["name"]: {k: v for k, v in x.items() if k != "name"} for x in value}
        if isinstance(value, dict):
            out.update(flatten(value, f"{prefix}{name}."))
        else:
            out[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, (list, tuple)) else value
    return out
