"""ivflow's computations: plain Python and torch. Knows nothing of Prefect or MLflow."""

import os

__version__ = "0.1.0"

# Threads of a sum that wait for each other sleep. By default they spin, and beside one busy process two threads are
# then many times slower than one. OpenMP reads this as torch is loaded; what the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
