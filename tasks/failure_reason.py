"""What is written down when a run does not end well: the reason, on the run's Prefect page and on its MLflow runs.

Hooks of every flow. Prefect calls them in the flow's process, or in the worker's when that process is gone.
"""

import logging
from typing import Any

from tasks import runtime, tracking

# Prefect's word -> the page's and MLflow's. The hook of a run that is being cancelled comes before it is.
WORDS = {
    "FAILED": ("Failed", "FAILED"),
    "CRASHED": ("Crashed", "KILLED"),
    "CANCELLING": ("Cancelled", "KILLED"),
    "CANCELLED": ("Cancelled", "KILLED"),
}
ADVICE = "What was finished is kept. Run it again, or press Retry: it goes on from there."
log = logging.getLogger("iv")


def explain(flow: Any, flow_run: Any, state: Any) -> None:
    """Write the reason down and end what MLflow still shows as RUNNING; failing at that is only a warning."""
    reason = _unknown(flow, flow_run) or " ".join((state.message or "no reason given").split())[:1000]
    title, status = WORDS[state.type.value]
    try:
        place = runtime.prepare((flow_run.parameters or {}).get("home"))
        tracking.end_runs(place, str(flow_run.id), status, reason)
        _show(flow_run, f"### {title}\n\n{reason}\n\n{ADVICE}\n")
    except Exception as e:
        log.warning("the end of run %s could not be noted: %s", flow_run.name, (str(e).splitlines() or [""])[0][:300])


def _unknown(flow: Any, flow_run: Any) -> str:
    """A parameter that the flow does not take: Prefect starts such a run, and its process ends without a word."""
    known = list(flow.parameters.properties) if flow is not None else []
    strange = [name for name in flow_run.parameters or {} if known and name not in known]
    return f"The flow takes no parameter {strange[0]!r}; it takes {', '.join(known)}." if strange else ""


def _show(flow_run: Any, text: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate

    note = ArtifactCreate(key="ending", type="markdown", data=text, flow_run_id=flow_run.id)
    with get_client(sync_client=True) as client:
        client.create_artifact(note)


HOOKS: dict[str, Any] = {"on_failure": [explain], "on_crashed": [explain], "on_cancellation": [explain]}
