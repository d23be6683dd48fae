"""Processes that do not go together are told so before anything starts."""

from __future__ import annotations

import pytest
import torch

from tasks.earth.processes import choose_device, team
from tasks.errors import ConfigurationError


def test_one_process_leads_and_keeps_what_it_has() -> None:
    with team("none", "cpu") as crew:
        assert crew.leads
        assert crew.device == torch.device("cpu")
        assert crew.shared("this") == "this"
        assert crew.total(2.5) == 2.5


def test_several_without_a_way_to_work_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="started 2 processes: say --parallel ddp"), team("none", "cpu"):
        pass


def test_a_way_to_work_together_wants_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigurationError, match="torchrun --nproc-per-node 2"), team("ddp", "cpu"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="--device cuda: torch sees no GPU"), team("none", "cuda"):
        pass


def test_a_gpu_is_taken_where_there_is_one() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")
