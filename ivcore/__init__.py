"""ivflow's computations: plain Python and torch. Knows nothing of Prefect or MLflow."""

__version__ = "0.1.0"
