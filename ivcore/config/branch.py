"""What every branch of the config tree is made of.

A step is handed its own branch, and the branch is the recipe of its artifact. A field that is `speed_only` (how many
workers, which device) stays out of the key: results are the same but for rounding, where sums go in another order.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Language = Literal["en", "zh", "es"]
TextClass = Literal["short", "long"]
Json = Any  # what a TOML or JSON value may be
PACKAGE = Path(__file__).parents[1]


def speed_only(default: Any, description: str, **limits: Any) -> Any:
    """A field outside the recipe: it may change speed, memory and the last bits of sums, nothing else of a result."""
    return Field(default, description=description, json_schema_extra={"recipe": False}, **limits)


def when_set(default: Any, description: str, **limits: Any) -> Any:
    """A field that is in the recipe only where it is not at its default: recipes from before it keep their keys."""
    return Field(default, description=description, json_schema_extra={"recipe": "when set"}, **limits)


def one_of(default: str, folder: Path, suffix: str, description: str, also: tuple[str, ...] = ()) -> Any:
    """A field that names a file of a folder: forms show the names as a menu, servers refuse others."""
    names = sorted(p.stem for p in folder.glob(f"*{suffix}") if not p.stem.startswith("_"))
    return Field(default, description=description, json_schema_extra={"enum": [*also, *names]})


class Branch(BaseModel):
    """Frozen, strict about names, and checks its own defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    def recipe(self) -> dict[str, Json]:
        """The fields that decide the bytes of a result, as plain JSON values."""
        out: dict[str, Json] = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            kept = extra.get("recipe", True) if isinstance(extra, dict) else True
            if kept is False or (kept == "when set" and getattr(self, name) == field.default):
                continue
            out[name] = _plain(getattr(self, name))
        return out


def _plain(value: Any) -> Json:
    if isinstance(value, Branch):
        return value.recipe()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value
