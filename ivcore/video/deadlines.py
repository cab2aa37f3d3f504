"""Clips that were lost under a shorter deadline are tried again: the deadline then becomes part of the recipe."""

from collections.abc import Mapping
from typing import Any

from ivcore.store.artifacts import Store, key
from ivcore.store.versions import VERSIONS


def with_deadline(
    store: Store, kind: str, config: dict[str, Any], inputs: Mapping[str, str], deadline_s: float
) -> dict[str, Any]:
    """The recipe; with the deadline in it where the artifact of the plain one lost clips under a shorter deadline.

    So what may still come is not given up for ever, and an artifact that is there keeps its bytes.
    """
    found = store.find(kind, key(kind, VERSIONS[kind], config, inputs))
    if found is None or found.record()["facts"].get("lost_within_s", deadline_s) >= deadline_s:
        return config
    return {**config, "deadline_s": deadline_s}
