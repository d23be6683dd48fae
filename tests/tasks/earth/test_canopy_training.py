"""Canopy training from a request: what is taught, what is doubted, what is kept, what is said."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from canopy_cases import AREA, Place, landscape, make_place, write_raster
from rasterio.features import shapes
from shapely.geometry import shape

from models.canopy import CanopyNet
from models.earthpt import EarthPT, EarthPTConfig
from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT
from storage.location import resolve
from tasks.earth.canopy_map import MapRequest, map_job, prepare_map
from tasks.earth.canopy_training import CURVE, CanopyRequest, HeadChoice, LabelledArea, _drawn_woods, train_canopy
from tasks.earth.label_report import TileSplit
from tasks.earth.label_rules import LabelRules
from tasks.earth.layers import map_layers
from tasks.earth.mapping import fill_region
from tasks.earth.model_files import load_network, save_network
from tasks.earth.regional import fill_regions, publish_prepared
from tasks.errors import ConfigurationError

BACKBONE = EarthPTConfig(layers=1, heads=2, width=16, pointers=2, queries=4)
HEAD = HeadChoice(months=3, hidden=8, reach=1, dropout=0.0, steps=60, learning_rate=1e-2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A cube of classes that lie apart, and an EarthPT that has learned nothing."""
    found = make_place(tmp_path_factory.mktemp("canopy"), landscape(), spread=60)
    model = EarthPT(BACKBONE, generator=torch.Generator().manual_seed(1))
    save_network(
        resolve(found.warehouse),
        "tiny",
        model,
        kind="earthpt",
        config=asdict(BACKBONE),
        metrics={},
        training={"loop": {"tokens": 1_000_000}},
        card="Tiny.",
    )
    return found


def request_of(place: Place, **change: object) -> CanopyRequest:
    ground = LabelledArea(AREA, place.labels, LabelRules(margin=0), split=TileSplit(8, 0, (0.6, 0.3, 0.1), 2))
    request = CanopyRequest(place.warehouse, "canopy", "tiny", CANOPY_CLASSES, ground, head=HEAD)
    return replace(request, **change)  # type: ignore[arg-type]


def test_a_head_learns_classes_that_lie_apart_and_says_what_it_was_made_from(place: Place) -> None:
    trained = train_canopy(request_of(place))
    assert trained.metrics["canopy"]["pr_auc"] > 0.9
    assert trained.training["backbone"]["name"] == "tiny"
    assert trained.training["labels"]["file"] == "truth.tif"
    assert trained.training["doubted"] == 0
    share = trained.training["share_of_pretraining"]
    assert share["looks"] == pytest.approx(trained.training["looks"] / 1_000_000)
    assert trained.curve.startswith(b"\x89PNG")
    assert resolve(trained.reference.url).read_bytes(CURVE) == trained.curve
    loaded = load_network(resolve(place.warehouse), "canopy")
    assert loaded.legend == CANOPY_CLASSES
    assert isinstance(loaded.model, CanopyNet)
    own = load_network(resolve(place.warehouse), "tiny").model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.model.backbone.state_dict().items())


def test_the_same_request_gives_the_same_weights(place: Place) -> None:
    short = replace(HEAD, steps=10)
    one, two = (train_canopy(request_of(place, head=short, name=name)) for name in ("one", "two"))
    assert one.reference.weights_sha256 == two.reference.weights_sha256


def test_its_map_is_published_like_any_other(place: Place) -> None:
    train_canopy(request_of(place, name="mapped"))
    prepared = prepare_map(MapRequest(place.warehouse, AREA, "mapped", collection="mapped"))
    for name, regions in prepared.groups():
        fill_regions(prepared, name, regions)
    assert publish_prepared(prepared).item_url.endswith(".json")


def write_inventory(folder: Path) -> str:
    """Write the woods as polygons, without the hedge."""
    woods = landscape()
    woods[22] = 0
    with rasterio.open(write_raster(folder / "woods.tif", woods)) as raster:
        found = list(shapes(woods, mask=woods > 0, transform=raster.transform))
        crs = raster.crs
    names = [{1: "broadleaved", 2: "conifer"}[int(value)] for _, value in found]
    path = folder / "woods.gpkg"
    geopandas.GeoDataFrame({"class": names}, geometry=[shape(outline) for outline, _ in found], crs=crs).to_file(path)
    return str(path)


def test_what_an_inventory_leaves_out_is_not_taught_where_the_starting_head_sees_canopy(
    place: Place, tmp_path: Path
) -> None:
    train_canopy(request_of(place, name="teacher"))
    request = request_of(place, name="pupil", backbone="teacher")
    assert request.labelled is not None
    ground = replace(request.labelled, labels=write_inventory(tmp_path), rules=LabelRules(margin=0, outside="none"))
    doubting = train_canopy(replace(request, labelled=ground))
    assert doubting.training["doubted"] > 0
    assert len(doubting.training["judged"]) == 1
    believing = train_canopy(replace(request, name="gullible", labelled=ground, head=replace(HEAD, doubt=1.0)))
    assert believing.training["doubted"] == 0
    told, pupil, gullible = (hedge(place, name) for name in ("teacher", "pupil", "gullible"))
    assert told > 0.3
    assert pupil > (told + gullible) / 2


def hedge(place: Place, model: str) -> float:
    """Return the mean canopy probability that a model's map gives the hedge."""
    job = map_job(MapRequest(place.warehouse, AREA, model))
    (region,) = job.plan.regions
    found = fill_region(job.plan, region, map_layers(CANOPY_CLASSES), job.open())["canopy_probability"]
    rows, columns = np.nonzero(found != 65535)
    return float(found[rows.min() + 22, columns.min() + 4 : columns.min() + 60].mean()) / 10_000


def test_woods_that_an_inventory_would_have_drawn_are_wide_and_large() -> None:
    seen = np.zeros((64, 64), bool)
    seen[2:5, :] = True  # a belt of 30 m
    seen[10:18, 10:18] = True  # 0.64 ha
    seen[30:42, 20:32] = True  # 1.44 ha, with a hedge to its side
    seen[35, 32:60] = True
    woods = np.zeros_like(seen)
    woods[30:42, 20:32] = True
    assert np.array_equal(_drawn_woods(seen), woods)


def test_where_labels_are_believed_a_new_head_competes_with_the_old_one(place: Place) -> None:
    train_canopy(request_of(place, name="old"))
    one = train_canopy(request_of(place, name="again", backbone="old", head=replace(HEAD, steps=3)))
    judged = one.training["judged"]
    assert len(judged) == 2
    assert judged[0] > judged[1]  # three updates do not make a new head
    assert one.training["head_from"].startswith("old/")


@pytest.mark.parametrize(("members", "asked", "kept"), [(None, None, 1), (2, None, 2), (2, 1, 1)])
def test_a_head_goes_on_with_fewer_classes_and_all_members_or_the_first(
    place: Place, tmp_path: Path, members: int | None, asked: int | None, kept: int
) -> None:
    train_canopy(request_of(place, name="three", head=replace(HEAD, members=members, steps=30)))
    labels = write_raster(tmp_path / "canopy.tif", (landscape() > 0).astype(np.uint8))
    request = request_of(place, name="two-classes", backbone="three", classes=CANOPY_OR_NOT)
    assert request.labelled is not None
    found = train_canopy(
        replace(request, labelled=replace(request.labelled, labels=labels), head=replace(HEAD, steps=5, members=asked))
    )
    assert found.metrics["classes"]["canopy"]["pr_auc"] > 0.9
    model = load_network(resolve(place.warehouse), "two-classes").model
    assert isinstance(model, CanopyNet)
    assert len({member.stem.weight.sum().item() for member in model.head.every}) == kept


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_tuning_changes_how_looks_are_read_and_saves_plain_weights(place: Place, tuning: str) -> None:
    choice = replace(HEAD, tuning=tuning, steps=16, patience=100)  # type: ignore[arg-type]
    train_canopy(request_of(place, name=tuning, head=choice))
    model = load_network(resolve(place.warehouse), tuning).model
    assert isinstance(model, CanopyNet)
    assert set(model.state_dict()) == set(CanopyNet(model.config).state_dict())


def test_as_published_it_is_an_mlp_on_the_pooled_embedding(place: Place) -> None:
    choice = replace(HEAD, months=0, reach=0, doubt=1.0, fresh_head=True)
    trained = train_canopy(request_of(place, name="published", head=choice))
    model = load_network(resolve(place.warehouse), "published").model
    assert isinstance(model, CanopyNet)
    assert model.halo == 0
    assert model.config.features == BACKBONE.width + 16
    assert trained.metrics["canopy"]["prevalence"] > 0


def test_generated_places_alone_make_a_head(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.earth.canopy_places.PLACE", 48)
    monkeypatch.setattr("tasks.earth.canopy_training._PLACES_HELD_OUT", 2)
    found = train_canopy(
        request_of(place, name="prior", labelled=None, places=5, head=replace(HEAD, steps=5), workers=1)
    )
    assert "generated places" in found.metrics["evaluation"]
    assert found.training["places"] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labelled": None}, "nothing to learn from"),
        ({"backbone": "floor"}, "is a forest"),
        ({"labelled": None, "places": 3, "head": replace(HEAD, tuning="lora")}, "learns from cubes"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_read(
    place: Place, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train_canopy(request_of(place, **change))


def test_a_head_can_be_put_on_another_backbone(place: Place) -> None:
    other = EarthPTConfig(layers=2, heads=2, width=8, pointers=2, queries=4)
    save_network(
        resolve(place.warehouse),
        "other",
        EarthPT(other),
        kind="earthpt",
        config=asdict(other),
        metrics={},
        training={},
        card="Other.",
    )
    train_canopy(request_of(place, name="first"))
    moved = train_canopy(request_of(place, name="moved", backbone="other", head=replace(HEAD, head="first", steps=5)))
    model = load_network(resolve(place.warehouse), "moved").model
    assert isinstance(model, CanopyNet)
    assert model.backbone.config == other
    assert moved.training["backbone"]["name"] == "other"
    assert moved.training["head_from"].startswith("first/")


def test_labels_of_one_class_are_refused(place: Place, tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "none.tif", np.zeros_like(landscape()))
    request = request_of(place)
    assert request.labelled is not None
    with pytest.raises(ConfigurationError, match="two or more are needed"):
        train_canopy(replace(request, labelled=replace(request.labelled, labels=labels)))
