"""Networks that read profiles: opened once, and of the kind that the method takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.pix2prof import Pix2Prof
from models.profile_network import ProfileNet
from tasks.errors import ConfigurationError
from tasks.sky.methods import DEFAULT_MODEL
from tasks.sky.profile_models import load_reader


def test_a_model_is_read_once_and_asks_for_no_gradient(tmp_path: Path) -> None:
    first, again = (
        load_reader(str(tmp_path), DEFAULT_MODEL, ProfileNet, method="network", kind="profile-net") for _ in range(2)
    )
    assert again is first
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_one_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="profiles-small is of kind profile-net; --method published takes a pix2prof"
    ):
        load_reader(str(tmp_path), DEFAULT_MODEL, Pix2Prof, method="published", kind="pix2prof")
