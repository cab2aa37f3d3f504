"""A flow that does nothing: what a run costs when all of it is Prefect's."""

from prefect import flow


@flow(name="nothing", persist_result=False)
def nothing() -> None:
    """Nothing."""
