"""A name in a config is the name of a file: list a folder, import the module of that name. Nothing is registered."""

import importlib
import pkgutil
from types import ModuleType

from ivcore.errors import UserError


def names(package: str) -> list[str]:
    """Sorted names of the modules in `package`, e.g. names("ivcore.datasets.sets") -> ["folder", "synthetic"]."""
    folder = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))


def module(package: str, name: str) -> ModuleType:
    """The module `name` of `package`; UserError naming the known ones when there is no such file."""
    if name not in names(package):
        raise UserError(f"{package} has no {name!r}; known: {', '.join(names(package))}")
    return importlib.import_module(f"{package}.{name}")
