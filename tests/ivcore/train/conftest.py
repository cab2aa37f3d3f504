import pytest

from tests.ivcore.train.chain import Chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    return Chain(tmp_path_factory.mktemp("chain"))
