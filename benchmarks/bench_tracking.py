"""What the training curves cost the thread that trains: a batch of figures every FLUSH_S seconds into a real MLflow.

train_log_share    seconds of steps between two batches and of sending one, against the steps alone
"""

import statistics
import tempfile
import time
from pathlib import Path

from tasks import runtime, tracking

SENT, FIGURES = 40, 45  # batches; figures that gather meanwhile: three notes of 15 figures


def run() -> list[dict]:
    with tempfile.TemporaryDirectory() as place:
        home = runtime.prepare(Path(place) / "ws")
        mlflow = tracking.client(runtime.tracking_uri())
        stage = tracking.StageRun(mlflow.create_run(tracking.experiment(home, runtime.tracking_uri())).info.run_id)
        times = []
        for step in range(SENT):
            for note in range(3):
                stage.log({f"figure_{n}": step + note / 3 for n in range(FIGURES // 3)}, 30 * step + 10 * note)
            begun = time.perf_counter()
            stage.flush()
            times.append(time.perf_counter() - begun)
        kept = len(mlflow.get_metric_history(stage.run_id, "figure_0"))
    return [
        {
            "name": "train_log_share",
            "ours": tracking.FLUSH_S + statistics.mean(times),
            "baseline": tracking.FLUSH_S,
            "unit": "s",
            "spread": {"flush": [min(times), max(times)]},
            "equal": kept == 3 * SENT,
            "how_equal": f"{kept} of {3 * SENT} points are in the store; SQLite, {FIGURES} figures a batch",
        }
    ]
