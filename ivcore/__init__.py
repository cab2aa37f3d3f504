"""ivflow's computations: plain Python and torch. Knows nothing of Prefect or MLflow."""

import os

__version__ = "0.1.0"

# Threads of a sum that wait for each other spin a little, then sleep. By default they spin long, and beside busy
# processes two threads are then many times slower than one. OpenMP reads this as torch is loaded; what the user has
# set stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
