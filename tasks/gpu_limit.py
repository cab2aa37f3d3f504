"""Turns on a GPU: a step that trains, encodes or scores there waits for a free slot of Prefect's limit `iv-gpu`.

`iv up` makes the limit, one slot for each GPU of the machine. More or fewer: the dashboard (Concurrency), or
`prefect gcl update iv-gpu --limit 2`. Where no such limit is, as in a run without servers, nothing waits. The slot of a
process that is killed comes free when its lease ends, after five minutes at most.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from ivcore.config import TrainConfig
from ivcore.models import device as devices

LIMIT = "iv-gpu"
log = logging.getLogger("iv")


@contextlib.contextmanager
def slot(train: TrainConfig) -> Iterator[None]:
    """A slot for as long as this lasts, if `train.take_turns` asks for one here and the limit is there."""
    if not _asked(train) or not _there():
        yield
        return
    from prefect.concurrency.sync import concurrency

    with concurrency(LIMIT, occupy=1, strict=True):
        yield


def make_limit() -> None:
    """Make the limit where there is none yet; one that is there keeps its number."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    if _there():
        return
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=max(gpus, 1)))


def _asked(train: TrainConfig) -> bool:
    if train.take_turns != "cuda":
        return train.take_turns == "always"

    return bool(devices.choose(train.device).type == "cuda")


def _there() -> bool:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    try:
        with get_client(sync_client=True) as client:
            return bool(client.read_global_concurrency_limit_by_name(LIMIT).active)
    except ObjectNotFound:
        return False
