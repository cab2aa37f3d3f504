"""The device of a config, its attention kernels, and a card without room."""

import logging

import pytest
import torch

from ivcore.errors import WorkError
from ivcore.models import device


@pytest.fixture
def card(monkeypatch):
    """Makes torch tell of a card of a compute capability; what is switched is put back."""
    before = torch.backends.cuda.cudnn_sdp_enabled()

    def make(capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some Card")
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)

    yield make
    torch.backends.cuda.enable_cudnn_sdp(before)


def test_no_plans_are_built_per_shape_on_a_card(card, caplog):
    card((9, 0))
    torch.backends.cuda.enable_cudnn_sdp(True)
    assert device.choose("auto") == torch.device("cuda:1")  # the current card, by its number
    assert not torch.backends.cuda.cudnn_sdp_enabled() and torch.backends.cuda.flash_sdp_enabled()
    assert not caplog.records and device.lacks((9, 0)) == ""


def test_an_old_card_is_named_with_the_next_best(card, caplog):
    card((7, 5))
    with caplog.at_level(logging.WARNING, "iv.device"):
        device.choose("cuda:0")
    (record,) = caplog.records
    assert "Some Card: compute capability 7.5 has no flash attention" in record.getMessage()
    assert device.kernels((7, 5)).startswith("memory-efficient") and device.kernels((8, 0)).startswith("flash")


def test_a_cpu_is_a_cpu():
    assert device.choose("cpu") == torch.device("cpu")


def test_a_card_without_room_is_one_line_with_what_helps():
    full = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB "
    full += "of which 1.20 GiB is free."
    with pytest.raises(WorkError) as found, device.memory("a smaller batch_size"):
        raise torch.OutOfMemoryError(full)
    line = "the GPU has no room: 2.50 GiB were asked for, 1.20 GiB of 79.11 GiB are free; a smaller batch_size helps"
    assert str(found.value) == line
    with pytest.raises(WorkError, match="no room: HIP out of memory; x helps"), device.memory("x"):
        raise torch.OutOfMemoryError("HIP out of memory\nmore")
