"""One way in and out of a sky store: what is written comes back bit for bit, a batch appears whole, old states open."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sky_cases import assert_same_cutout, random_cutout

from storage import sky
from storage.cutouts import BandFacts, Cutout
from storage.errors import NotFound, SchemaMismatch
from storage.location import Location, resolve
from storage.sky import SkyReader, append_cutouts, open_sky
from storage.sky_catalogue import CATALOGUE
from storage.sky_schema import PLANES, SIZE_CLASSES, UNKNOWN_TERMS, group_of, terms_of

FLOATS = st.floats(width=32, allow_nan=False)


@pytest.fixture
def store(tmp_path: Path) -> Location:
    return resolve(tmp_path) / "sky/legacy"


def drawn(location: Location, cutouts: list[Cutout]) -> SkyReader:
    append_cutouts(location, cutouts, batch="first")
    return SkyReader(location)


@st.composite
def cutouts(draw: st.DrawFn) -> Cutout:
    """Draw a cutout: any shape about the edge of a class, any float but NaN, any id."""
    shape = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    names = draw(st.lists(st.sampled_from(["g", "r", "i", "z", "F814W", "i'/2"]), min_size=1, max_size=3, unique=True))
    size = (len(names), *shape)
    psfs = [draw(st.none() | hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)))) for _ in names]
    return Cutout(
        object_id=draw(st.integers(0, 2**63 - 1).map(str) | st.text(st.characters(codec="utf-8"), min_size=1)),
        ra=draw(st.floats(0, 360) | st.just(float("nan"))),
        dec=draw(st.floats(-90, 90)),
        bands=tuple(BandFacts(name, psf=psf) for name, psf in zip(names, psfs, strict=True)),
        flux=draw(hnp.arrays(np.float32, size, elements=FLOATS)),
        valid=draw(hnp.arrays(bool, size)),
        ivar=draw(hnp.arrays(np.float32, size, elements=FLOATS)),
        maskbits=draw(hnp.arrays(np.int32, size)),
        segmentation=draw(hnp.arrays(np.int32, shape)),
        wcs=draw(st.text(st.characters(codec="ascii"))),
        pixel_scale_arcsec=draw(st.floats(1e-3, 10)),
        flux_unit=draw(st.sampled_from(["nanomaggies", "counts"])),
    )


@settings(max_examples=15)
@given(st.lists(cutouts(), min_size=1, max_size=3, unique_by=lambda cutout: cutout.object_id))
def test_what_is_appended_reads_back_bit_for_bit(batch: list[Cutout]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reader = drawn(resolve(folder) / "sky/survey", batch)
        assert set(reader.ids) == {cutout.object_id for cutout in batch}
        for cutout in batch:
            assert_same_cutout(reader.read(cutout.object_id), cutout)


@pytest.mark.parametrize(
    ("shape", "group"),
    [
        ((1, 64), "0064/r/counts"),
        ((65, 3), "0128/r/counts"),
        ((500, 512), "0512/r/counts"),
        ((2048, 9), "2048/r/counts"),
        ((2049, 9), "large/"),
    ],
)
def test_the_longer_side_chooses_the_size_class(store: Location, shape: tuple[int, int], group: str) -> None:
    cutout = random_cutout("7", shape=shape, bands=("r",), unit="counts")
    reader = drawn(store, [cutout])
    assert reader.catalogue["group"][0].startswith(group)
    assert_same_cutout(reader.read("7"), cutout)


def test_objects_of_all_kinds_share_one_store(store: Location) -> None:
    batch = [
        random_cutout("1", seed=1),
        random_cutout("2", seed=2, bands=("r",)),
        random_cutout("3", seed=3, bands=("z", "r", "g")),
        random_cutout("4", seed=4, unit="counts"),
        random_cutout("5", seed=5, shape=(100, 90), psf=(63, 63)),
        random_cutout("6", seed=6, psf=None),
    ]
    reader = drawn(store, batch)
    assert reader.catalogue["group"].nunique() == 5
    for cutout in batch:
        assert_same_cutout(reader.read(cutout.object_id), cutout)


def test_a_batch_is_one_commit_and_writing_it_again_is_none(store: Location) -> None:
    batch = [random_cutout(str(number), seed=number) for number in range(5)]
    first = append_cutouts(store, batch, batch="a")
    assert append_cutouts(store, batch[:3], batch="b") == first
    second = append_cutouts(store, [*batch, random_cutout("5", seed=5)], batch="c")
    assert second != first
    reader = SkyReader(store)
    assert reader.snapshot == second
    assert reader.catalogue["batch"].tolist() == ["a"] * 5 + ["c"]
    assert SkyReader(store, first).ids == tuple(map(str, range(5)))


def test_a_replaced_object_is_new_now_and_old_in_older_snapshots(store: Location) -> None:
    old, other = random_cutout("1", seed=1), random_cutout("2", seed=2)
    new = random_cutout("1", seed=9, shape=(80, 80))
    first = append_cutouts(store, [old, other], batch="a")
    append_cutouts(store, [new], batch="b")
    reader = SkyReader(store)
    assert sorted(reader.ids) == ["1", "2"]
    assert_same_cutout(reader.read("1"), new)
    assert_same_cutout(reader.read("2"), other)
    assert_same_cutout(SkyReader(store, first).read("1"), old)
    append_cutouts(store, [old], batch="c")
    assert_same_cutout(SkyReader(store).read("1"), old)
    assert len(open_sky(store)["0064/g-r-z/nanomaggies"]["object"]) == 2


@pytest.mark.parametrize("change", [{"ra": 1.0}, {"notes": ()}, {"wcs": ""}, {"bands": ()}, {"flux": ()}])
def test_any_change_of_an_object_replaces_it(store: Location, change: dict[str, object]) -> None:
    cutout = random_cutout("1")
    if "bands" in change:
        change = {"bands": (replace(cutout.bands[0], psf=None), *cutout.bands[1:])}
    if "flux" in change:
        change = {"flux": np.nextafter(cutout.flux, np.float32(9))}
    changed = replace(cutout, **change)  # type: ignore[arg-type]
    assert append_cutouts(store, [cutout], batch="a") != append_cutouts(store, [changed], batch="b")
    assert_same_cutout(SkyReader(store).read("1"), changed)


def test_an_older_state_is_read_without_touching_the_catalogue(store: Location) -> None:
    first = append_cutouts(store, [random_cutout("1")], batch="a")
    append_cutouts(store, [random_cutout("2")], batch="b")
    kept = store.read_bytes(CATALOGUE)
    assert SkyReader(store, first).ids == ("1",)
    assert store.read_bytes(CATALOGUE) == kept


def test_nothing_to_write_makes_an_empty_store(store: Location) -> None:
    reader = drawn(store, [])
    assert (reader.ids, len(reader.catalogue), open_sky(store)) == ((), 0, {})
    assert pq.read_table(store.local_path / CATALOGUE).num_rows == 0  # type: ignore[operator]


def test_padding_and_empty_planes_take_next_to_no_space(store: Location) -> None:
    def size(location: Location) -> int:
        assert location.local_path is not None
        return sum(path.stat().st_size for path in (location.local_path / "chunks").rglob("*"))

    full = replace(random_cutout("1", shape=(128, 128)), maskbits=np.zeros((3, 128, 128), dtype=np.int32))
    tight = replace(full, flux=full.flux[:, :65, :65], valid=full.valid[:, :65, :65], ivar=full.ivar[:, :65, :65])
    tight = replace(tight, maskbits=tight.maskbits[:, :65, :65], segmentation=tight.segmentation[:65, :65])
    append_cutouts(store, [full], batch="a")
    other = store / "other"
    append_cutouts(other, [tight], batch="a")
    assert size(other) < 1.2 * size(store) * (65 / 128) ** 2


def test_open_sky_gives_lazy_datasets_with_units(store: Location) -> None:
    batch = [random_cutout("10", seed=1), random_cutout("11", seed=2, shape=(100, 30))]
    append_cutouts(store, batch, batch="a")
    groups = open_sky(str(store))
    assert list(groups) == ["0064/g-r-z/nanomaggies", "0128/g-r-z/nanomaggies"]
    found = groups["0128/g-r-z/nanomaggies"]
    assert found["flux"].dims == ("object", "band", "y", "x")
    assert found["flux"].chunks is not None
    assert found["object"].values.tolist() == ["11"]
    rows, columns = found["shape"].values[0]
    inside = found["flux"].sel(object="11").values[:, :rows, :columns]
    np.testing.assert_array_equal(inside, batch[1].flux)
    assert not found["valid"].values[0, :, rows:].any()
    assert float(found["ra"][0]) == batch[1].ra
    units = {name: found[name].attrs["units"] for name in ("flux", "ivar", "valid", "ra")}
    assert units == {"flux": "nmgy", "ivar": "nmgy**-2", "valid": "1", "ra": "degree"}
    assert all("long_name" in found[name].attrs for name in found.data_vars)
    assert "Legacy Imaging" in found.attrs["license"]


def test_terms_follow_the_survey_or_what_is_said(store: Location) -> None:
    assert terms_of("folder-of-mine") == UNKNOWN_TERMS
    append_cutouts(store, [random_cutout("1")], batch="a", terms="CC BY 4.0")
    assert open_sky(store)["0064/g-r-z/nanomaggies"].attrs["license"] == "CC BY 4.0"


def test_a_cutout_that_does_not_fit_is_refused_with_every_difference(store: Location) -> None:
    cutout = random_cutout("1")
    bad = replace(cutout, flux=cutout.flux.astype(float), valid=cutout.valid[:, :5])
    with pytest.raises(SchemaMismatch, match=r"'1'.*flux: float64.*valid: bool \(3, 5, 24\)"):
        append_cutouts(store, [random_cutout("2"), bad], batch="a")
    with pytest.raises(NotFound):
        SkyReader(store)


def test_what_is_not_there_is_said(store: Location) -> None:
    with pytest.raises(NotFound, match="no sky store"):
        SkyReader(store)
    first = append_cutouts(store, [random_cutout("1")], batch="a")
    with pytest.raises(NotFound, match="'2'"):
        SkyReader(store).read("2")
    assert "1" in SkyReader(store, first)
    with pytest.raises(NotFound, match="snapshot"):
        SkyReader(store, "0" * 20)


@pytest.mark.parametrize("side", SIZE_CLASSES)
def test_a_chunk_is_one_object(side: int) -> None:
    cutout = Cutout(
        "1",
        0.0,
        0.0,
        (BandFacts("r"),),
        *(np.zeros((1, side, 2), dtype=kind) for kind in (np.float32, bool, np.float32, np.int32)),
        np.zeros((side, 2), dtype=np.int32),
        "",
        1.0,
    )
    group = group_of(cutout, "d")
    assert [group.chunks(plane) for plane in PLANES] == [(1, 1, side, side)] * 4 + [(1, side, side)]


@pytest.mark.server
def test_a_store_lives_in_an_object_store(s3_warehouse: str) -> None:
    location = resolve(s3_warehouse) / "sky/legacy"
    batch = [random_cutout(str(number), seed=number) for number in range(3)]
    reader = drawn(location, batch)
    for cutout in batch:
        assert_same_cutout(reader.read(cutout.object_id), cutout)


def test_a_batch_costs_the_same_whatever_the_store_holds(store: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sky, "CHUNKS_PER_MANIFEST", 8)

    def listed() -> int:
        assert store.local_path is not None
        return sum(path.stat().st_size for path in (store.local_path / "manifests").iterdir())

    sizes = [0]
    for batch in range(8):
        cutouts = [random_cutout(str(8 * batch + number), seed=number, bands=("r",), psf=None) for number in range(8)]
        append_cutouts(store, cutouts, batch=str(batch))
        sizes.append(listed())
    added = np.diff(sizes)
    assert added[-1] < 1.5 * added[1]


@pytest.mark.server
def test_writers_of_an_object_store_come_in_each_after_the_other(s3_warehouse: str) -> None:
    location = resolve(s3_warehouse) / "sky/shared"
    batches = [[random_cutout(str(10 * part + number), seed=number) for number in range(3)] for part in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda batch: append_cutouts(location, batch, batch=batch[0].object_id), batches))
    reader = SkyReader(location)
    assert sorted(reader.ids) == sorted(cutout.object_id for batch in batches for cutout in batch)
    for cutout in (cutout for batch in batches for cutout in batch):
        assert_same_cutout(reader.read(cutout.object_id), cutout)


def test_writers_of_a_folder_wait_for_each_other(store: Location) -> None:
    batches = [[random_cutout(str(10 * part + number), seed=number) for number in range(2)] for part in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda batch: append_cutouts(store, batch, batch=batch[0].object_id), batches))
    assert sorted(SkyReader(store).ids) == sorted(cutout.object_id for batch in batches for cutout in batch)
