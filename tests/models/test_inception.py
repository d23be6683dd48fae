"""Inception from a file: the published size, images in, and files that are something else."""

from __future__ import annotations

import io
import pickle

import pytest
import torch

from models.inception import FEATURES, Inception, InceptionFileError, load_inception


def as_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_a_file_gives_the_network_of_its_weights() -> None:
    """It has the 21,785,568 parameters of FID's network; the file's classifier, which FID leaves out, is passed over."""
    torch.manual_seed(1)
    written = Inception().eval()
    state = {**written.state_dict(), "fc.weight": torch.zeros(1008, 2048)}
    read = load_inception(as_file(state))
    assert sum(parameter.numel() for parameter in read.parameters()) == 21_785_568
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert read(images).shape == (1, FEATURES)
        torch.testing.assert_close(read(images), written(images))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a file of tensors", "no file of tensors"),
        (b"hello", "no file of tensors"),
        (pickle.dumps({"conv": print}), "no file of tensors"),
        (as_file({"conv.weight": torch.zeros(3)}), "not the weights of FID's Inception: Conv2d_1a_3x3"),
        (as_file(torch.zeros(3)), "not the weights"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InceptionFileError, match=message):
        load_inception(data)
