"""Places: read as they are drawn, by one process or several, kept, and taken up where they were left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.canopy import CanopyConfig, CanopyNet
from models.indices import BANDS
from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT
from storage.location import Location, resolve
from tasks.earth import canopy_places
from tasks.earth.canopy_cells import TRAIN, VALIDATION, Cell
from tasks.earth.canopy_features import grid_features
from tasks.earth.canopy_places import ReadPlace, _read_here, cells_of_place, place_cells, read_place
from tasks.earth.prior.places import draw_place
from tasks.pools import POOLS

CONFIG = CanopyConfig(layers=1, heads=2, width=8, pointers=2, months=1, hidden=8, reach=1)
PIXELS = 32


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canopy_places, "PLACE", PIXELS)


@pytest.fixture
def model() -> CanopyNet:
    return CanopyNet(CONFIG, generator=torch.Generator().manual_seed(3)).eval()


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    return resolve(tmp_path)


def files_of(warehouse: Location) -> dict[str, bytes]:
    """Return the pieces that are kept, and what they hold."""
    root = warehouse / POOLS
    return {
        f"{folder}/{name}": (root / folder).read_bytes(name)
        for folder in root.list_folders()
        for name in (root / folder).list_names()
    }


def assert_same(one: list[Cell], two: list[Cell]) -> None:
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(first.features, second.features)
        assert np.array_equal(first.labels, second.labels)
        assert np.array_equal(first.part, second.part)
        assert first.looks == second.looks


def cells(
    warehouse: Location, model: CanopyNet, places: int, *, processes: int = 1, told: list[int] | None = None
) -> list[Cell]:
    heard = [] if told is None else told
    return place_cells(
        warehouse,
        model,
        places=places,
        held_out=1,
        classes=CANOPY_CLASSES,
        processes=processes,
        on_progress=lambda stage, done, total: heard.append(done),
    )


def test_a_place_is_read_whole_and_every_second_one_with_fewer_bands_too(model: CanopyNet) -> None:
    even, odd = draw_place(2, pixels=PIXELS), draw_place(3, pixels=PIXELS)
    whole = grid_features(model, even.reflectance, even.valid, even.dates, bands=BANDS).astype(np.float16)
    (read,) = read_place(model, even, 2).features
    assert np.array_equal(read, whole)
    full, fewer = read_place(model, odd, 3).features
    bands_seen = [(found[-len(BANDS) - 6 : -6] > 0).any(axis=(1, 2)).sum() for found in (full, fewer)]
    assert bands_seen[0] == len(BANDS) > bands_seen[1] >= 2


def test_a_file_gives_a_place_back(model: CanopyNet) -> None:
    read = read_place(model, draw_place(3, pixels=PIXELS), 3)
    again = ReadPlace.from_bytes(read.to_bytes())
    assert again.looks == read.looks
    assert np.array_equal(again.classes, read.classes)
    assert np.array_equal(again.tree_cover, read.tree_cover)
    assert all(np.array_equal(one, two) for one, two in zip(again.features, read.features, strict=True))


def test_labels_lie_inside_the_halo_and_are_those_of_the_classes(model: CanopyNet) -> None:
    read = read_place(model, draw_place(2, pixels=PIXELS), 2)
    (cell,) = cells_of_place(read, halo=3, classes=CANOPY_CLASSES, part=TRAIN)
    assert cell.halo == 3
    assert np.array_equal(cell.labels, read.classes[3:-3, 3:-3])
    assert cell.cover is not None
    assert np.array_equal(cell.cover >= 50, cell.labels > 0)
    (either,) = cells_of_place(read, halo=0, classes=CANOPY_OR_NOT, part=TRAIN)
    assert np.array_equal(either.labels, read.classes > 0)


def test_the_first_places_validate(warehouse: Location, model: CanopyNet) -> None:
    first, *others = cells(warehouse, model, 2)
    assert (first.part == VALIDATION).all()
    assert all((cell.part == TRAIN).all() for cell in others)


def test_several_processes_give_what_one_gives(tmp_path: Path, model: CanopyNet) -> None:
    alone, together = resolve(tmp_path / "alone"), resolve(tmp_path / "together")
    assert_same(cells(alone, model, 3), cells(together, model, 3, processes=2))
    assert files_of(alone) == files_of(together)


def test_places_that_others_draw_are_read_here_alike(tmp_path: Path, warehouse: Location, model: CanopyNet) -> None:
    cells(warehouse, model, 3)
    here = resolve(tmp_path / "here")
    assert sorted(_read_here(here, model, range(3), 2)) == [0, 1, 2]
    found = {name.rpartition("/")[2]: content for name, content in files_of(warehouse).items()}
    assert {name: here.read_bytes(name) for name in here.list_names()} == found


def test_reading_goes_on_where_it_was_interrupted(warehouse: Location, model: CanopyNet) -> None:
    told: list[int] = []
    cells(warehouse, model, 2, told=told)
    kept = files_of(warehouse)
    unbroken = cells(warehouse, model, 4, told=told)
    assert told == [1, 2, 3, 4]
    assert {name: files_of(warehouse)[name] for name in kept} == kept
    again = cells(warehouse, model, 4, told=told)
    assert told == [1, 2, 3, 4]
    assert_same(again, unbroken)


def test_another_earthpt_and_other_months_are_read_anew_and_another_head_is_not(
    warehouse: Location, model: CanopyNet
) -> None:
    cells(warehouse, model, 1)
    other_head = CanopyNet(replace(CONFIG, hidden=12, reach=2), generator=torch.Generator().manual_seed(4))
    other_head.backbone.load_state_dict(model.backbone.state_dict())
    cells(warehouse, other_head.eval(), 1)
    assert len(files_of(warehouse)) == 1
    other_months = CanopyNet(replace(CONFIG, months=2))
    other_months.backbone.load_state_dict(model.backbone.state_dict())
    cells(warehouse, other_months.eval(), 1)
    assert len(files_of(warehouse)) == 2
    cells(warehouse, CanopyNet(CONFIG, generator=torch.Generator().manual_seed(5)).eval(), 1)
    assert len(files_of(warehouse)) == 3
