"""Pictures of the dashboards, by a headless Chromium: `python docs/screenshots.py docs/pictures [RUN]`.

After `. workspace/run/env.sh`; the servers of `iv up` have to run, and `everything` has to have run on them once.
Chromium is driven by its own DevTools protocol over a web socket, so nothing else has to be installed.
"""

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from websockets.sync.client import ClientConnection, connect

WAIT_S = 120.0
SETTLE_S = 3.0  # pages draw after their data is there
SPOT = """((text, left) => {
  const found = [...document.querySelectorAll('li.p-tab,.ag-row a')].find(e => e.innerText.trim().endsWith(text));
  const box = found.getBoundingClientRect();
  return [left ? box.x - left : box.x + box.width / 2, box.y + box.height / 2];
})(%s, %d)"""  # the middle of a tab or link, or so many pixels left of it, where MLflow has the sign that unfolds a run


class Page:
    """A tab of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.calls = socket, 0

    def call(self, method: str, **params: Any) -> Any:
        """A DevTools call and its result."""
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=WAIT_S))
            if answer.get("id") == self.calls:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def shoot(self, url: str, words: str, path: Path, click: str = "", then: str = "", left: int = 0) -> None:
        """Open, wait until the page says the words, perhaps click on or beside a text and wait again, then save it."""
        self.call("Page.navigate", url=url)
        self._until(words, url)
        time.sleep(SETTLE_S)
        if click:
            x, y = self.js(SPOT % (json.dumps(click), left))
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            self._until(then, url)
            time.sleep(SETTLE_S)
        shot = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        Image.open(io.BytesIO(shot)).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the bytes
        print(f"{path}  {url}")

    def _until(self, words: str, url: str) -> None:
        until = time.monotonic() + WAIT_S
        while words not in (self.js("document.body ? document.body.innerText : ''") or ""):
            if time.monotonic() > until:
                raise TimeoutError(f"{url} does not say {words!r}")
            time.sleep(0.5)


@contextlib.contextmanager
def browser(width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A headless Chromium with one tab."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={folder}", f"--window-size={width},{height}"]
        process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            file = Path(folder) / "DevToolsActivePort"
            until = time.monotonic() + WAIT_S
            while not file.exists() or not file.read_text().strip():
                if time.monotonic() > until:
                    raise TimeoutError("Chromium does not start")
                time.sleep(0.2)
            port = file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as reply:
                tab = next(t for t in json.load(reply) if t["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait()


def main(folder: Path, name: str | None = None) -> None:
    """The six pictures of docs/operate.md, of the newest run that was completed or of the one named."""
    folder.mkdir(parents=True, exist_ok=True)
    prefect = os.environ["PREFECT_API_URL"].removesuffix("/api")
    mlflow = os.environ["MLFLOW_TRACKING_URI"]
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("everything/everything")
        done = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])))
        runs = client.read_flow_runs(flow_run_filter=done, sort=FlowRunSort.END_TIME_DESC, limit=200)
        run = next(r for r in runs if name in (None, r.name))
        of_run = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=["verdict"])
        )
        (verdict,) = client.read_artifacts(artifact_filter=of_run)
    tracking = MlflowClient(tracking_uri=mlflow)
    experiment = tracking.get_experiment_by_name("ivflow")
    assert experiment is not None, "no run of ivflow in MLflow"
    number = experiment.experiment_id
    wanted = f"tags.`iv.step` = 'score' and tags.`prefect.flow_run.id` = '{run.id}'"
    scores = tracking.search_runs([number], wanted, max_results=2)
    ids = json.dumps([r.info.run_id for r in scores])
    with browser() as page:
        page.shoot(f"{prefect}/deployments", "everything", folder / "deployments.png")
        page.shoot(f"{prefect}/deployments/deployment/{deployment.id}/run", "Each seed is a whole", folder / "form.png")
        page.shoot(f"{prefect}/runs/flow-run/{run.id}", "Artifacts", folder / "run.png", "Artifacts", "steps")
        page.shoot(f"{prefect}/artifacts/artifact/{verdict.id}", "R@1", folder / "verdict.png")
        tree = f"{mlflow}/#/experiments/{number}/runs?workflowType=machine_learning"
        page.shoot(tree, run.name, folder / "tree.png", run.name, "fit_s2", left=32)
        compare = f'{mlflow}/#/compare-runs?runs={ids}&experiments=["{number}"]'
        page.shoot(compare, "Comparing", folder / "compare.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
