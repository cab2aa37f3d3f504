"""Waiting threads soon sleep in every process that computes: said before torch is loaded, which reads it once."""

import os
import subprocess
import sys

import pytest

NOTED = """
import importlib, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            print("torch", os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import torch
"""


def noted(entry, **env):
    """What a process that begins with the module `entry` has set when torch is loaded."""
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    ran = subprocess.run([sys.executable, "-c", NOTED, entry], env=clean | env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return next(line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("torch "))


@pytest.mark.parametrize("entry", ["flows.everything", "flows.cli", "ivcore.train.fit", "ivcore.train.worker"])
def test_waiting_threads_soon_sleep(entry):
    assert noted(entry) == ["None", "1000"]


def test_what_the_user_has_set_stays():
    assert noted("ivcore.train.fit", OMP_WAIT_POLICY="active") == ["active", "None"]
    assert noted("ivcore.train.fit", GOMP_SPINCOUNT="7") == ["None", "7"]
