"""Turns on a GPU: a step that trains, encodes or scores there waits for free slots of Prefect's limit `iv-gpu`.

`iv up` makes the limit, one slot for each GPU of the machine. More or fewer: the dashboard (Concurrency), or
`prefect gcl update iv-gpu --limit 2`. Where no such limit is, as in a run without servers, nothing waits. The slot of a
process that is killed comes free when its lease ends, after five minutes at most.

A step takes as many slots as it has processes on this machine. One whose `train.device` names no card gets one that no
other step of this workspace is on: a card is a locked file, HOME/run/cards/N, which comes free with its process.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from ivcore.config import TrainConfig

LIMIT = "iv-gpu"


@contextlib.contextmanager
def slot(train: TrainConfig, home: Path) -> Iterator[None]:
    """Slots for as long as this lasts, if `train.take_turns` asks for them here and the limit is there; and a card."""
    limit = _limit() if _asked(train) else 0
    with contextlib.ExitStack() as held:
        if limit:
            from prefect.concurrency.sync import concurrency

            wanted = min(train.ranks // train.nodes, limit)
            held.enter_context(concurrency(LIMIT, occupy=wanted, strict=True))
        if train.device_type == "cuda" and train.device in ("auto", "cuda") and train.ranks == 1:
            import torch

            torch.cuda.set_device(held.enter_context(card(home, torch.cuda.device_count())))
        yield


@contextlib.contextmanager
def card(home: Path, count: int) -> Iterator[int]:
    """The number of a card of `count` that no other step is on; the first where all are taken."""
    folder = home / "run" / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        with (folder / str(number)).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    yield 0


def make_limit() -> None:
    """Make the limit where there is none yet; one that is there keeps its number."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    if _limit():
        return
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=max(gpus, 1)))


def _asked(train: TrainConfig) -> bool:
    return train.device_type == "cuda" if train.take_turns == "cuda" else train.take_turns == "always"


def _limit() -> int:
    """The slots of the limit; 0 where it is not there or not in force."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    try:
        with get_client(sync_client=True) as client:
            limit = client.read_global_concurrency_limit_by_name(LIMIT)
            return int(limit.limit) if limit.active else 0
    except ObjectNotFound:
        return 0
