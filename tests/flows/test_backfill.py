"""`canopus backfill` and the limits of checks on the command line: what is refused, what a dry run says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ingest_cases import area_of, grid, ingest, make_archive, request_of, text_of
from map_cases import LOOSE, fill_map, with_model
from typer.testing import CliRunner

from flows.cli import app, main
from flows.config import BackfillConfig, GateSettings, UpdateConfig, make_config
from flows.infer import to_rules
from tasks.earth.gates import CHECKS, GateRules
from tasks.earth.map_release import check_prepared, publish_checked
from tasks.errors import UsageError

MAP = {"aoi": "-1.3,51.4,-1.2,51.5", "model": "floor"}


def test_the_limits_of_the_settings_are_those_of_the_checks() -> None:
    assert to_rules(GateSettings()) == GateRules()
    strict = GateSettings(max_age_days=3, min_seen=None, allow=("drift",), asked="2021-05-01")  # type: ignore[arg-type]
    assert to_rules(strict) == GateRules(max_age_days=3, min_seen=None, allow=("drift",), asked="2021-05-01")
    for name in CHECKS:
        make_config(GateSettings, {"allow": [name]})


def test_the_structure_cannot_be_allowed() -> None:
    with pytest.raises(UsageError, match=r"allow\.0"):
        make_config(GateSettings, {"allow": ["structure"]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "2022-01-01", "end": "2021-01-01"}, "^start 2022-01-01 lies after end"),
        ({"start": "2021-01-01", "every": "monthly"}, "^every: monthly is no number of days, weeks, months or years"),
        ({"start": "20210101"}, "^start: 20210101 is no day, YYYY-MM-DD"),
        ({"start": "2021-01-01", "every": "0M"}, "every"),
        ({"start": "2021-01-01", "map": {**MAP, "until": "2021-05-01"}}, "map.until is set by start"),
    ],
)
def test_a_period_that_cannot_be_is_refused(change: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_config(BackfillConfig, {"map": MAP, **change})


def test_the_update_asks_for_looks_that_are_fresh_on_the_last_day_searched() -> None:
    searched = {"catalog": "x", "aoi": MAP["aoi"], "start": "2021-01-01", "end": "2021-06-30"}
    config = make_config(UpdateConfig, {"ingest": searched, "map": MAP})
    assert str(config.map_asked.gates.asked) == "2021-06-30"
    assert config.map_asked.until is None
    until = make_config(UpdateConfig, {"ingest": searched, "map": {**MAP, "until": "2021-05-31"}})
    assert str(until.map_asked.gates.asked) == "2021-05-31"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--gate", "max_age_days"), "--gate max_age_days: give name=value"),
        (("--gate", "max_aeg_days=3"), "map.gates.max_aeg_days: there is no such setting"),
        (("--gate", "min_valid=1.5"), "map.gates.min_valid"),
        (("--allow", "structure"), "map.gates.allow"),
    ],
)
def test_a_wrong_limit_is_a_usage_error_that_names_it(
    option: tuple[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["backfill", f"--aoi={MAP['aoi']}", "--start", "2021-01-01", *option]
    monkeypatch.setattr(sys, "argv", ["canopus", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_dry_run_says_which_maps_are_there_and_writes_nothing(tmp_path: Path) -> None:
    warehouse = with_model(tmp_path / "warehouse")
    place = grid(size=64)
    archive = make_archive(tmp_path / "archive", count=3, geobox=place, cloudy=(0, 0))
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": area_of(place)}))
    ingest(request_of(archive.catalog, warehouse, area=area_of(place)))
    # the area as a file and as the request held it give the same map
    from tasks.earth.grid import read_area

    prepared, _ = fill_map(warehouse, read_area(str(area)), "2021-05-06")
    published = publish_checked(prepared, check_prepared(prepared, LOOSE))
    arguments = [
        "backfill",
        "--model",
        "floor",
        "--aoi",
        str(area),
        "--warehouse",
        str(warehouse),
        "--start",
        "2021-04-26",
        "--every",
        "5D",
    ]
    before = sorted(path for path in warehouse.rglob("*") if path.is_file())
    shown = CliRunner().invoke(app, [*arguments, "--end", "2021-05-12", "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    days = {day["day"]: (day["state"], day["item"]) for day in json.loads(shown.output)["days"]}
    assert days["2021-04-26"] == ("no look", "")
    assert days["2021-05-01"][0] == "missing"
    assert days["2021-05-06"] == ("published", published.item_url)
    assert days["2021-05-11"][0] == "missing"
    assert sorted(path for path in warehouse.rglob("*") if path.is_file()) == before


def test_the_area_may_be_given_as_bounds() -> None:
    config = make_config(BackfillConfig, {"map": {**MAP, "aoi": text_of(area_of(grid()))}, "start": "2021-01-01"})
    assert config.every == "1M"
