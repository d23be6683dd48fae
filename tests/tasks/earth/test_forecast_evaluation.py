"""From a warehouse to a report: the same numbers as from arrays, however the area is cut, and no leak on the way."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from forecast_cases import LEVELS, Spy
from odc.geo.geom import box
from series_cases import SMALL, lively_model

from models.floors import FLOORS
from storage.cube import DateEntry, create_cube, open_cube, write_cube
from storage.errors import NotFound
from storage.location import resolve
from storage.schema import CubeSchema
from tasks.earth import forecast_evaluation, forecast_plots
from tasks.earth.forecast_evaluation import (
    EvaluationRequest,
    Holdout,
    PreparedEvaluation,
    evaluate_area,
    parse_holdout,
    parse_origins,
    prepare_evaluation,
    score_regions,
)
from tasks.earth.forecast_protocol import ScoringRule, asking, series_of
from tasks.earth.forecast_scores import evaluate_arrays
from tasks.earth.grid import tiles_of
from tasks.earth.model_files import save_network
from tasks.earth.places import drawn
from tasks.errors import ConfigurationError

CRS = "EPSG:32630"
BANDS = ("B02", "B04", "B08")
ROWS, COLUMNS = slice(100, 116), slice(236, 276)  # across the border of two blocks
ORIGIN = np.datetime64("2020-10-01")
RULE = ScoringRule((ORIGIN, np.datetime64("2020-11-10")), 100)
DAYS = np.datetime64("2019-01-05") + 20 * np.arange(42)


def area_of_pixels(rows: slice, columns: slice, corner: tuple[float, float]) -> dict:
    left, top = corner
    edges = (left + 10 * columns.start, top - 10 * rows.stop, left + 10 * columns.stop, top - 10 * rows.start)
    return dict(box(*edges, CRS).to_crs("EPSG:4326", resolution=20).json)


CORNER = (614_400.0, 5_703_680.0)
AREA = area_of_pixels(ROWS, COLUMNS, CORNER)


def fill(warehouse: Path, *, change_from: np.datetime64 | None = None) -> None:
    """Write a cube of random looks with clouds; from a day on, other values."""
    (tile,) = tiles_of(AREA, crs=CRS)
    location = resolve(warehouse) / tile.path
    create_cube(location, CubeSchema(tile.geobox, BANDS))
    shape = (ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start)
    rng, other = np.random.default_rng(5), np.random.default_rng(6)
    with write_cube(location) as writer:
        for number, day in enumerate(DAYS):
            looks = rng.integers(100, 5000, (3, *shape), dtype=np.uint16)
            scl = np.where(rng.random(shape) < 0.01, 9, 4).astype(np.uint8)
            if change_from is not None and day >= change_from:
                looks = other.integers(100, 9000, looks.shape, dtype=np.uint16)
            record = {"scene": f"s{number}", "state": "used", "solar_day": str(day)}
            entry = DateEntry(None, day.astype("datetime64[us]"), (ROWS, COLUMNS), looks, scl, (record,))
            writer.write(entry)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forecasts")
    fill(folder)
    return folder


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """Return the forecaster that every model's name stands for; pictures are not drawn, they take seconds."""
    spy = Spy()
    monkeypatch.setattr(forecast_evaluation, "open_forecaster", lambda root, name: spy)
    monkeypatch.setattr(forecast_plots, "draw_pictures", lambda report, examples: {"example_pixels.png": b"drawn"})
    return spy


def request_of(warehouse: Path, **more: object) -> EvaluationRequest:
    return replace(EvaluationRequest(str(warehouse), AREA, RULE, model="spy", crs=CRS), **more)  # type: ignore[arg-type]


def from_arrays(warehouse: Path, spy: Spy, chosen: np.ndarray | None = None) -> dict:
    """Score what `open_cube` gives, without regions."""
    (tile,) = tiles_of(AREA, crs=CRS)
    cube = open_cube(resolve(warehouse) / tile.path).isel(y=ROWS, x=COLUMNS).load()
    times = cube.sizes["time"]
    keep = slice(None) if chosen is None else chosen.reshape(-1)
    series = series_of(
        cube["reflectance"].values.reshape(times, 3, -1)[:, :, keep],
        BANDS,
        valid=cube["valid"].values.reshape(times, -1)[:, keep],
        clear=(cube["scl"].values == 4).reshape(times, -1)[:, keep],
        dates=cube["time"].values.astype("datetime64[D]"),
    )
    return evaluate_arrays(series, asking(spy), RULE, quantiles=LEVELS).report()


def test_the_report_holds_the_numbers_of_the_arrays_and_its_pictures(warehouse: Path, spy: Spy) -> None:
    report = evaluate_area(request_of(warehouse))
    expected = from_arrays(warehouse, spy)
    assert expected["counts"]["pixels"] == 16 * 40
    assert {name: report[name] for name in expected} == expected
    folder = Path(report["report"]).parent
    assert folder.parent.name == "runs"
    assert json.loads((folder / "forecast_scores.json").read_text()) == report
    assert json.loads((folder / "manifest.json").read_text())["kind"] == "evaluate"
    assert [Path(place).read_bytes() for place in report["pictures"]] == [b"drawn"]


def test_every_region_is_read_once_and_order_does_not_matter(warehouse: Path, spy: Spy) -> None:
    prepared = prepare_evaluation(request_of(warehouse))
    ((_, parts),) = prepared.groups()
    assert len(parts) == 2
    forward, backward = score_regions(prepared, parts), score_regions(prepared, parts[::-1])
    assert forward.scores.report() == backward.scores.report()
    assert [example.place for example in forward.examples.chosen()] == [
        example.place for example in backward.examples.chosen()
    ]


def test_what_was_seen_after_the_origins_changes_no_forecast(tmp_path: Path, warehouse: Path, spy: Spy) -> None:
    """Through the whole evaluation: another future, the same questions and the same answers."""
    fill(tmp_path, change_from=ORIGIN)
    rule = replace(RULE, origins=(ORIGIN,))
    first = evaluate_area(request_of(warehouse, rule=rule))
    shown, said = list(spy.shown), list(spy.said)
    spy.shown.clear()
    spy.said.clear()
    second = evaluate_area(request_of(tmp_path, rule=rule))
    assert first["indices"]["ndvi"]["model"]["mae"] != second["indices"]["ndvi"]["model"]["mae"]
    assert all(first["indices"]["ndvi"][name]["n"] == second["indices"]["ndvi"][name]["n"] for name in FLOORS)
    for mine, theirs in zip(shown, spy.shown, strict=True):
        assert (mine[2] < ORIGIN).all()
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.concatenate(said), np.concatenate(spy.said))


def test_held_out_blocks_are_the_only_ones_scored(warehouse: Path, spy: Spy) -> None:
    holdout = Holdout(3, 1, block=8)
    mask = holdout.held_out((1024, 1024))[ROWS, COLUMNS]
    report = evaluate_area(request_of(warehouse, holdout=holdout))
    assert 0 < mask.sum() < mask.size
    expected = from_arrays(warehouse, spy, mask)
    assert report["counts"] == expected["counts"]
    assert report["indices"] == expected["indices"]


def test_no_pixel_is_both_trained_on_and_held_out() -> None:
    parts = [Holdout(5, fold, block=20, gap=2) for fold in range(5)]
    held = np.stack([part.held_out((200, 300)) for part in parts])
    assert held.sum(axis=0).max() == 1
    for part, scored in zip(parts, held, strict=True):
        assert not (scored & part.trainable((200, 300))).any()
        assert part.trainable((200, 300)).any()
    whole = [Holdout(5, fold).held_out((200, 300)) for fold in range(5)]
    assert (np.sum(whole, axis=0) == 1).all()


def test_a_share_of_the_pixels_is_the_same_however_it_is_cut(warehouse: Path, spy: Spy) -> None:
    report = evaluate_area(request_of(warehouse, share=0.25))
    assert 0.18 < report["counts"]["pixels"] / (16 * 40) < 0.32
    whole = drawn({"y": slice(0, 512), "x": slice(0, 512)}, 0.25)
    part = drawn({"y": slice(100, 300), "x": slice(256, 512)}, 0.25)
    np.testing.assert_array_equal(whole[100:300, 256:512], part)
    assert whole.mean() == pytest.approx(0.25, abs=0.01)


def test_only_the_area_is_scored(warehouse: Path, spy: Spy) -> None:
    inner = area_of_pixels(slice(102, 114), slice(250, 270), CORNER)
    assert evaluate_area(request_of(warehouse, area=inner))["counts"]["pixels"] == 12 * 20


def test_bands_may_be_left_out(warehouse: Path, spy: Spy) -> None:
    report = evaluate_area(request_of(warehouse, bands=("B04", "B08")))
    assert report["bands"] == ["B04", "B08"]
    assert spy.shown[0][0].shape[1] == 2
    assert report["screened"] == {}  # without B02 there is no haze rule


def test_a_model_that_does_not_take_the_bands_is_refused_before_anything_is_read(warehouse: Path, spy: Spy) -> None:
    spy.bands = ("B04", "B08")
    with pytest.raises(ConfigurationError, match=r"cube holds B02.*--bands"):
        prepare_evaluation(request_of(warehouse))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bands": ("B04", "B11")}, ConfigurationError, "B11 is not among them"),
        ({"bands": ("B02",)}, ConfigurationError, "make no index"),
        ({"rule": replace(RULE, origins=(np.datetime64("2019-06-01"),))}, ConfigurationError, "at least 15 looks"),
        ({"rule": replace(RULE, origins=(np.datetime64("2031-06-01"),))}, ConfigurationError, "no pixel of the area"),
        (
            {"area": area_of_pixels(slice(0, 5), slice(3000, 3005), CORNER)},
            ConfigurationError,
            "no cube .* of the area; run",
        ),
    ],
)
def test_what_cannot_be_scored_says_why(
    warehouse: Path, spy: Spy, change: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate_area(request_of(warehouse, **change))


def test_an_unknown_model_is_named(warehouse: Path) -> None:
    with pytest.raises(NotFound, match="'nobody'"):
        prepare_evaluation(request_of(warehouse, model="nobody"))


def test_a_saved_network_is_scored_beside_the_floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_plots, "draw_pictures", lambda report, examples: {})
    fill(tmp_path)
    save_network(
        resolve(tmp_path),
        "small",
        lively_model(3),
        kind="earthpt",
        config=asdict(SMALL),
        metrics={},
        training={},
        card="Small.",
    )
    report = evaluate_area(request_of(tmp_path, model="small", share=0.25))
    scores = report["indices"]["ndvi"]
    assert scores["model"]["n"] == scores["window_median"]["n"] > 0
    assert np.isfinite(scores["model"]["mae"])
    assert scores["model"]["mae"] != scores["window_median"]["mae"]
    assert "bsi" not in report["indices"]


def test_report_and_pictures_go_where_they_are_wanted(warehouse: Path, spy: Spy, tmp_path: Path) -> None:
    report = evaluate_area(request_of(warehouse, out=str(tmp_path / "scores")))
    written = sorted(path.name for path in (tmp_path / "scores").iterdir())
    assert written == ["example_pixels.png", "forecast_scores.json"]
    assert report["report"].endswith("scores/forecast_scores.json")


def test_progress_is_told_by_region(warehouse: Path, spy: Spy) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate_area(request_of(warehouse), lambda *part: told.append(part))
    assert [part[1:] for part in told] == [(1, 2), (2, 2)]


def test_memory_is_bounded_by_a_few_thousand_pixels(warehouse: Path, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_area(request_of(warehouse))
    monkeypatch.setattr(forecast_evaluation, "PIXELS_AT_ONCE", 100)
    spy.shown.clear()
    pieces = evaluate_area(request_of(warehouse))
    assert max(shown[0].shape[2] for shown in spy.shown) <= 100
    for name in ("counts", "indices", "screened", "interval_coverage", "pinball"):
        assert pieces[name] == whole[name]


@pytest.mark.parametrize("text", ["2019-01-01", "2019-01-01:2019-07-01:MS", "2019-01-15:2019-03-15:10D"])
def test_origins_are_read(text: str) -> None:
    if text == "2019-01-01":
        assert parse_origins(text) == (np.datetime64("2019-01-01"),)
    else:
        assert len(parse_origins(text)) == (7 if text.endswith("MS") else 6)


@pytest.mark.parametrize("text", ["yesterday", "2019-01-01:2019-07-01:XX", "2019-07-01:2019-01-01:MS", "a:b:c"])
def test_origins_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--origins {text}"):
        parse_origins(text)


def test_a_holdout_is_read_or_refused() -> None:
    assert parse_holdout("5:0") == Holdout(5, 0)
    assert parse_holdout("4:3:12") == Holdout(4, 3, block=12)
    for text in ("5", "5:x", "1:2:3:4"):
        with pytest.raises(ConfigurationError, match="--holdout-blocks"):
            parse_holdout(text)
    with pytest.raises(ConfigurationError, match="5:5"):
        parse_holdout("5:5")


def test_a_prepared_evaluation_can_be_sent_to_another_process(warehouse: Path, spy: Spy) -> None:
    import pickle

    prepared = prepare_evaluation(request_of(warehouse))
    ((_, parts),) = prepared.groups()
    again: PreparedEvaluation = pickle.loads(pickle.dumps(prepared))
    scored = pickle.loads(pickle.dumps(score_regions(again, parts)))
    assert scored.scores.report() == score_regions(prepared, parts).scores.report()
