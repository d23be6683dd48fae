"""The canopy heads that come with the package: what they stand on, and that they find canopy they never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.canopy import CanopyNet
from storage.classes import CANOPY_CLASSES
from storage.location import Location, resolve
from tasks.earth.canopy_cells import TRAIN
from tasks.earth.canopy_places import cells_of_place, read_place
from tasks.earth.model_files import LoadedNetwork, load_network
from tasks.earth.prior.places import draw_place
from tasks.earth.scores import ranking_scores

HEADS = {"canopy-distilled": "earthpt-distilled", "canopy-small": "earthpt-small"}
WEIGHTS = Path(__file__).parents[3] / "models" / "weights"
UNSEEN = 90_001
"""Of a generated place; training draws from 0 on. Odd, so that it is read with few bands too."""


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    return resolve(tmp_path / "empty")


def model_of(network: LoadedNetwork) -> CanopyNet:
    assert isinstance(network.model, CanopyNet)
    return network.model


@pytest.mark.parametrize("name", HEADS)
def test_a_head_stands_on_the_earthpt_that_it_names_or_says_that_it_holds_an_earlier_one(
    warehouse: Location, name: str
) -> None:
    head, backbone = load_network(warehouse, name), load_network(warehouse, HEADS[name])
    assert head.legend == CANOPY_CLASSES
    assert head.training["backbone"]["name"] == backbone.reference.name
    if head.training["backbone"]["sha256"] != backbone.reference.weights_sha256:
        parameters = sum(one.numel() for one in model_of(head).backbone.parameters())
        assert (
            f"the {backbone.reference.name} of {parameters:,} parameters that was shipped before"
            in (WEIGHTS / name / "card.md").read_text()
        )
        return
    own = backbone.model.state_dict()
    assert all(torch.equal(tensor, own[key]) for key, tensor in model_of(head).backbone.state_dict().items())


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_small_and_says_what_it_cannot_do(name: str) -> None:
    assert (WEIGHTS / name / "weights.safetensors").stat().st_size < 16 * 2**20
    card = (WEIGHTS / name / "card.md").read_text()
    assert "No real label that tells conifer from broadleaved" in card
    assert "generated places" in card


@pytest.mark.parametrize("name", HEADS)
def test_canopy_of_a_place_it_never_saw_is_found_with_all_bands_and_with_few(warehouse: Location, name: str) -> None:
    model = model_of(load_network(warehouse, name))
    place = read_place(model, draw_place(UNSEEN, pixels=72), UNSEEN)
    whole, fewer = cells_of_place(place, halo=model.halo, classes=CANOPY_CLASSES, part=TRAIN)
    for cell, least in ((whole, 0.75), (fewer, 0.6)):
        with torch.inference_mode():
            logits = model.logits(torch.from_numpy(cell.features.astype(np.float32))[None])[0]
        canopy = 1 - logits.softmax(dim=0)[0].numpy()
        scores = ranking_scores((cell.labels > 0).ravel(), canopy.ravel())
        assert scores.pr_auc is not None
        assert scores.pr_auc > least > scores.prevalence
