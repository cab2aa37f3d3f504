"""The devices of a test that holds on each of them; without CUDA its second half is skipped and named at the end."""

import pytest

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", CUDA]
