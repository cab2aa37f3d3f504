"""Schedules: they fire, the second firing finds everything, and a cron has its runs planned."""

import time

from ivcore.config import merge
from tests.e2e.conftest import SMALL

EVERY_S = 20


def test_a_schedule_fires_and_the_second_firing_makes_nothing(servers):
    deployment = servers.deployment("everything/everything")
    config = merge(SMALL, {"eval": {"k": 3}})  # something that is not there yet
    schedule = {"active": True, "schedule": {"interval": EVERY_S}, "parameters": {"config": config}, "slug": "seconds"}
    status, made = servers.prefect("POST", f"/deployments/{deployment['id']}/schedules", [schedule])
    assert status == 201, made
    try:
        first, second = _planned(servers, made[0]["id"], 2, "COMPLETED")[:2]
    finally:
        servers.prefect("DELETE", f"/deployments/{deployment['id']}/schedules/{made[0]['id']}")
    assert "steps were made" in servers.artifacts(first["id"])["steps"]
    assert "Nothing new" in servers.artifacts(second["id"])["steps"]
    states = [state for _, state in servers.tasks(second["id"], 10)]
    assert states[:8] == ["Cached"] * 8


def test_a_cron_has_its_next_runs_planned(servers):
    """With a SQLAlchemy that Prefect does not fit, they silently never come."""
    deployment = servers.deployment("everything/everything")
    (nightly,) = [s for s in deployment["schedules"] if s["slug"] == "nightly"]
    path = f"/deployments/{deployment['id']}/schedules/{nightly['id']}"
    assert servers.prefect("PATCH", path, {"active": True})[0] == 204
    try:
        planned = _planned(servers, nightly["id"], 1, "SCHEDULED")
    finally:
        servers.prefect("PATCH", path, {"active": False})
    assert all(run["expected_start_time"][14:16] == "30" for run in planned)  # half past, whatever the time of year


def _planned(servers, schedule_id, count, state, timeout_s=900):
    """At least so many runs that a schedule made and that are in a state, in the order of their times."""
    body = {"flow_runs": {"state": {"type": {"any_": [state]}}}, "sort": "EXPECTED_START_TIME_ASC"}
    until = time.monotonic() + timeout_s
    while True:
        every = servers.prefect("POST", "/flow_runs/filter", body)[1]
        found = [r for r in every if r["auto_scheduled"] and r["created_by"]["id"] == schedule_id]
        if len(found) >= count:
            return found
        assert time.monotonic() < until, servers.log()
        time.sleep(1)
