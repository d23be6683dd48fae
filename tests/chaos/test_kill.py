"""Killed at any instant, a run leaves a warehouse that opens, and the next run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from factories import Archive
from ingest_cases import (
    BANDS,
    Contents,
    Look,
    add_look,
    area_of,
    assert_same_cube,
    days,
    grid,
    ingest,
    read_all,
    request_of,
    text_of,
)
from odc.geo.geobox import GeoBox

from models.forest import ForestClassifier, ForestConfig, feature_names
from storage.classes import CANOPY_CLASSES
from storage.errors import NotFound
from storage.location import resolve
from tasks.earth.canopy_map import MapRequest
from tasks.earth.classifier_files import save_classifier
from tasks.earth.request import IngestRequest
from tasks.earth.verify import verify_product

CORE = Path(__file__).parent / "core.py"
START_S = 120.0
WIDE = GeoBox((256, 512), grid().affine, "EPSG:32630")
WINDOW = (slice(256, 512), slice(256, 768))
DATES, STANDING = 36, 12


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Return many dates, some with a second tile, some with a newer version."""
    archive = Archive(tmp_path_factory.mktemp("chaos") / "archive")
    for index, day in enumerate(days(DATES)):
        name = day.replace("-", "")
        add_look(archive, f"S2A_30UXC_{name}_0_L2A", day, Look(index, WIDE))
        if index % 4 == 0:
            add_look(archive, f"S2A_30UYC_{name}_0_L2A", day, Look(100 + index, WIDE[100:]), tile="30UYC")
        if index % 6 == 0:
            newer = Look(200 + index, WIDE, raised=1000, cloudy=(300, 400))
            add_look(archive, f"S2A_30UXC_{name}_1_L2A", day, newer, baseline="05.00")
    return archive


def whole_request(archive: Archive, warehouse: Path) -> IngestRequest:
    return request_of(archive.catalog, warehouse, area=area_of(WIDE))


@dataclass(frozen=True)
class Known:
    """What a cube may hold before, between and after."""

    standing: Path
    """A warehouse that holds the first dates of the left half."""
    before: Contents
    after: Contents
    from_nothing: Contents


@pytest.fixture(scope="module")
def known(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("known")
    ingest(request_of(archive.catalog, folder / "standing", end=days(DATES)[STANDING - 1]))
    shutil.copytree(folder / "standing", folder / "undisturbed")
    ingest(whole_request(archive, folder / "undisturbed"))
    ingest(whole_request(archive, folder / "new"))
    places = (folder / name for name in ("standing", "undisturbed", "new"))
    return Known(folder / "standing", *(read_all(place, window=WINDOW) for place in places))


def start(kind: str, request: Mapping[str, Any], folder: Path) -> subprocess.Popen[str]:
    """Start the core, and return once it begins to work."""
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    process = subprocess.Popen(
        [sys.executable, str(CORE), kind, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=START_S)[1]
    return process


def run_to_end(kind: str, request: Mapping[str, Any], folder: Path) -> float:
    """Return the seconds that the work took."""
    process = start(kind, request, folder)
    begun = time.perf_counter()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return time.perf_counter() - begun


def kill_after(seconds: float, kind: str, request: Mapping[str, Any], folder: Path) -> bool:
    """Kill the core some time into its work; return False where it was done before."""
    process = start(kind, request, folder)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        return process.returncode == -signal.SIGKILL
    assert process.returncode == 0, said
    return False


def check_every_date_is_whole(warehouse: Path, known: Known) -> int:
    """Compare each date in the cube with what it was, or with what it becomes; return how many are done."""
    try:
        cube = read_all(warehouse, window=WINDOW)
    except NotFound:
        return 0
    used = cube.scenes[cube.scenes["state"] == "used"] if len(cube.scenes) else cube.scenes
    assert len(cube.days) == len(set(cube.days)) == (used["entry"].nunique() if len(used) else 0)
    done = 0
    for index, day in enumerate(cube.days):
        if is_same_date(cube, index, known.after, day):
            done += 1
        else:
            assert is_same_date(cube, index, known.before, day), day
    return done


def is_same_date(cube: Contents, index: int, other: Contents, day: str) -> bool:
    if day not in other.days:
        return False
    place = other.days.index(day)
    return np.array_equal(cube.stored[index], other.stored[place]) and np.array_equal(cube.scl[index], other.scl[place])


def reset(folder: Path, standing: Path | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if standing is not None:
        shutil.copytree(standing, folder)


def kill_ingest(archive: Archive, known: Known, folder: Path, kills: int, seed: int) -> None:
    """Kill a run that adds dates, replaces scenes and grows the area, again and again, then let it end."""
    warehouse = folder / "warehouse"
    request = whole_request(archive, warehouse).to_json()
    reset(warehouse, known.standing)
    duration = run_to_end("ingest", request, folder)
    assert_same_cube(read_all(warehouse, window=WINDOW), known.after)
    reset(warehouse, known.standing)
    rng, done, progress = random.Random(seed), 0, []
    while done < kills:
        if not kill_after(rng.uniform(0.0, 0.7 * duration), "ingest", request, folder):
            assert_same_cube(read_all(warehouse, window=WINDOW), known.after)
            reset(warehouse, known.standing)
            continue
        done += 1
        progress.append(check_every_date_is_whole(warehouse, known))
    assert any(0 < count < DATES for count in progress), progress
    run_to_end("ingest", request, folder)
    assert_same_cube(read_all(warehouse, window=WINDOW), known.after)


def kill_first_writer(archive: Archive, known: Known, folder: Path, kills: int, seed: int) -> None:
    """Kill a run while it makes the cube and writes its first dates; each time the next run ends well."""
    warehouse = folder / "warehouse"
    request = whole_request(archive, warehouse)
    rng, counts = random.Random(seed), []
    for _ in range(kills):
        reset(warehouse, None)
        kill_after(rng.uniform(0.0, 0.5), "ingest", request.to_json(), folder)
        counts.append(check_every_date_is_whole(warehouse, known))
        ingest(request)
        assert_same_cube(read_all(warehouse, window=WINDOW), known.from_nothing)
    assert min(counts) < 3


@pytest.mark.slow
def test_three_kills_of_ingest(archive: Archive, known: Known, tmp_path: Path) -> None:
    kill_ingest(archive, known, tmp_path, kills=3, seed=1)


@pytest.mark.chaos
def test_twenty_kills_of_ingest(archive: Archive, known: Known, tmp_path: Path) -> None:
    kill_ingest(archive, known, tmp_path, kills=20, seed=2)


@pytest.mark.chaos
def test_ten_kills_of_a_first_ingest(archive: Archive, known: Known, tmp_path: Path) -> None:
    kill_first_writer(archive, known, tmp_path, kills=10, seed=3)


@pytest.mark.chaos
def test_kills_while_the_cube_is_made(archive: Archive, known: Known, tmp_path: Path) -> None:
    """Leave each first part of what making a cube writes, in the order in which it is written."""
    first = tmp_path / "first"
    ingest(request_of(archive.catalog, first, area=area_of(WIDE), end=days(DATES)[0]))
    files = sorted((path for path in first.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) > 8
    for count in range(len(files)):
        warehouse = tmp_path / f"after {count}"
        for path in files[:count]:
            target = warehouse / path.relative_to(first)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        present = {path.name for path in files[:count]}
        if "ref.json" in present and count < len(files):
            # the branch is rewritten by each commit: what it says is later than what stands
            continue
        check_every_date_is_whole(warehouse, known)
        ingest(whole_request(archive, warehouse))
        assert_same_cube(read_all(warehouse, window=WINDOW), known.from_nothing)


def canopus(*arguments: str, home: Path) -> subprocess.Popen[str]:
    """Start the command line in a session of its own, so that what it starts can be ended with it."""
    program = Path(sys.executable).parent / "canopus"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [str(program), *arguments],
        env=environment | {"HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_session(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def kill_command(
    arguments: tuple[str, ...], delays: list[float], home: Path, check: Callable[[], None]
) -> dict[str, Any]:
    """Kill the command, not what it started, after each delay; then let it end and return what it says."""
    for delay in delays:
        process = canopus(*arguments, home=home)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=delay)
        process.kill()
        check()
        end_session(process)
    process = canopus(*arguments, home=home)
    output, said = process.communicate(timeout=300)
    end_session(process)
    assert process.returncode == 0, said
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    return summary


@pytest.mark.chaos
def test_three_kills_of_the_command(archive: Archive, known: Known, tmp_path: Path) -> None:
    """With Prefect: its database and its server do not survive the kill in one piece, the warehouse does."""
    area = text_of(area_of(WIDE))

    def arguments(warehouse: Path) -> tuple[str, ...]:
        named = {"catalog": archive.catalog, "aoi": area, "start": "2015-01-01", "end": "2030-01-01"}
        named |= {"warehouse": warehouse, "bands": ",".join(BANDS)}
        return "ingest", *(part for name, value in named.items() for part in (f"--{name}", str(value))), "--json"

    begun = time.perf_counter()
    first = kill_command(arguments(tmp_path / "undisturbed"), [], tmp_path, lambda: None)
    duration = time.perf_counter() - begun
    assert first["counts"]["ingested"] > DATES
    rng, warehouse = random.Random(4), tmp_path / "warehouse"
    delays = [duration * rng.uniform(0.4, 0.95) for _ in range(3)]
    last = kill_command(
        arguments(warehouse), delays, tmp_path, lambda: check_every_date_is_whole(warehouse, known) and None
    )
    assert last["counts"]["failed"] == 0
    assert_same_cube(read_all(warehouse, window=WINDOW), read_all(tmp_path / "undisturbed", window=WINDOW))


MAPPED = grid(0, 0, 1000)


@pytest.fixture(scope="module")
def mappable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a warehouse with a cube and a small model."""
    folder = tmp_path_factory.mktemp("mappable")
    archive = Archive(folder / "archive")
    for index, day in enumerate(days(5)):
        add_look(archive, f"S2A_30UXC_{day.replace('-', '')}_0_L2A", day, Look(index, MAPPED))
    ingest(request_of(archive.catalog, folder / "warehouse", area=area_of(MAPPED)))
    rng = np.random.default_rng(5)
    features = rng.normal(0.2, 0.1, (300, len(feature_names(BANDS)))).astype(np.float32)
    forest = ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=20)).fit(features, np.arange(300) % 3)
    save_classifier(resolve(folder / "warehouse"), "floor", forest, classes=CANOPY_CLASSES, metrics={}, training={})
    return folder / "warehouse"


def items_in(warehouse: Path) -> list[Path]:
    """Return the items of published maps: what a reader of the catalogue would find."""
    return [
        path
        for path in warehouse.glob("products/canopy/*/*.json")
        if json.loads(path.read_text()).get("type") == "Feature"
    ]


def layers_of(item: Path) -> dict[str, np.ndarray]:
    layers = {}
    for path in sorted(item.parent.glob("*.tif")):
        with rasterio.open(path) as source:
            layers[path.name] = source.read()
    return layers


def check_map(warehouse: Path) -> list[Path]:
    """Check that cubes open and that what is published is whole; return its items."""
    assert read_all(warehouse, window=WINDOW).days == days(5)
    items = items_in(warehouse)
    for item in items:
        report = verify_product(str(item.parent))
        assert report.ok, str(report)
    return items


def kill_map(mappable: Path, folder: Path, kills: int, seed: int) -> None:
    """Kill a map again and again, begin a new one whenever one is done, then let it end."""
    warehouse = folder / "warehouse"
    request = asdict(MapRequest(str(warehouse), area_of(MAPPED), "floor"))
    reset(warehouse, mappable)
    duration = run_to_end("map", request, folder)
    (item,) = check_map(warehouse)
    expected, name = layers_of(item), item.name
    assert {"class.tif"} <= set(expected)
    reset(warehouse, mappable)
    rng, done = random.Random(seed), 0
    while done < kills:
        done += kill_after(rng.uniform(0.0, 0.7 * duration), "map", request, folder)
        if check_map(warehouse) and not (warehouse / "staging").exists():
            reset(warehouse, mappable)
    run_to_end("map", request, folder)
    (item,) = check_map(warehouse)
    assert item.name == name
    found = layers_of(item)
    assert found.keys() == expected.keys()
    for layer, values in expected.items():
        np.testing.assert_array_equal(found[layer], values, err_msg=layer)
    assert not any((warehouse / "staging").glob("*/*"))


@pytest.mark.slow
def test_three_kills_of_a_map(mappable: Path, tmp_path: Path) -> None:
    kill_map(mappable, tmp_path, kills=3, seed=6)


@pytest.mark.chaos
def test_twenty_kills_of_a_map(mappable: Path, tmp_path: Path) -> None:
    kill_map(mappable, tmp_path, kills=20, seed=7)
