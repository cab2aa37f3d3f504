"""What is set before Prefect and MLflow start."""

import os

import pytest

from tasks import runtime


@pytest.fixture
def environment(monkeypatch):
    """The environment is put back as it was."""
    before = dict(os.environ)
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("own", ["", "intern.example", "localhost,intern.example"])
def test_loopback_never_goes_through_a_proxy(own, tmp_path, environment):
    environment.setenv("http_proxy", "http://proxy.example:8080")
    environment.setenv("NO_PROXY", own)
    environment.delenv("no_proxy", raising=False)
    runtime.prepare(tmp_path)
    runtime.prepare(tmp_path)
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ[name].split(",")
        assert set(runtime.LOOPBACK) <= set(hosts) and len(hosts) == len(set(hosts))
    assert set(filter(None, own.split(","))) <= set(os.environ["NO_PROXY"].split(","))
