"""What prefect.yaml asks for while it deploys: the values of a run, whole, and the version of the code."""

from collections.abc import Sequence
from typing import Any

import ivcore


def values(source: str = "demo", sets: Sequence[str] = ()) -> dict[str, Any]:
    """A build step: the config of a named run or TOML file, and the version.

    Whole, since the dashboard's form sends every field it shows: what a deployment left to the named run would be sent
    as the field's own default, and the run would silently be another one.
    """
    from ivcore.config import load
    from tasks.tracking import git_commit

    commit = git_commit()[:10]
    version = f"{ivcore.__version__}+{commit}" if commit else ivcore.__version__
    return {"config": load(source, sets).model_dump(mode="json"), "version": version}
