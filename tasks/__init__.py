"""How a step is run: as a Prefect task, tracked by MLflow."""
