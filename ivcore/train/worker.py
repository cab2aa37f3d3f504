"""One rank of a phase, as torchrun starts it: `torchrun ... -m ivcore.train.worker PARENT JOB`; PARENT 0: nobody's."""

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from ivcore.errors import UserError, WorkError
from ivcore.train.launch import die_with, send


def main(parent: int, file: str) -> None:
    """Train the job of the file and say what came of it; exit status 1 after an error."""
    if parent:
        die_with(parent, signal.SIGKILL)
    import torch.distributed as dist

    from ivcore.train.fit import train
    from ivcore.train.job import Job
    from ivcore.train.parallel import Ranks

    values = json.loads(Path(file).read_text())
    job = Job.model_validate(values["job"])
    ranks = Ranks.join(job.train.parallel, job.train.device)

    def log(figures: Mapping[str, float], step: int) -> None:
        if ranks.rank == 0:
            send(figures=dict(figures), step=step)

    try:
        result = train(job, Path(values["out"]), log, ranks)
    except (UserError, WorkError) as error:
        send(error=str(error), kind=type(error).__name__)
        sys.exit(1)
    if ranks.rank == 0:
        send(result=result)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
