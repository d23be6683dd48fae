"""Reading scenes over HTTP gives the bytes of the file, or says why not."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window
from servers.range_server import KINDS, Faults, RangeServer, serve_folder

from storage.location import resolve
from tasks.earth.transport import Access, RangeCache, check_href, open_asset
from tasks.errors import SourceError, SourceRejected, SourceUnavailable
from tasks.limits import HttpLimits, TransferCount

LIMITS = HttpLimits(
    attempts=5, backoff_s=0.01, backoff_max_s=0.05, read_timeout_s=5, connect_timeout_s=5, requests_per_s=10_000
)
ACCESS = Access(limits=LIMITS)


def write_cog(path: Path, size: int, *, seed: int = 1, compress: str = "deflate") -> np.ndarray:
    values = np.random.default_rng(seed).integers(1, 10_000, (size, size), dtype="uint16")
    profile = {"width": size, "height": size, "count": 1, "dtype": "uint16", "nodata": 0, "crs": "EPSG:32632"}
    with rasterio.open(
        path, "w", driver="COG", blocksize=256, compress=compress, transform=from_origin(5e5, 52e5, 10, 10), **profile
    ) as file:
        file.write(values, 1)
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    write_cog(root / "scene.tif", 1024)
    write_cog(root / "small.tif", 256)
    (root / "odd names").mkdir()
    write_cog(root / "odd names" / "a b+c.tif", 256, seed=3)
    return root


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with serve_folder(folder) as running:
        yield running


def read(href: str, access: Access = ACCESS, **kwargs: object) -> np.ndarray:
    with open_asset(href, access, **kwargs) as dataset:  # type: ignore[arg-type]
        return dataset.read(1)


def local(folder: Path, name: str = "scene.tif") -> np.ndarray:
    with rasterio.open(folder / name) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize("name", ["scene.tif", "small.tif", "odd names/a b+c.tif"])
def test_a_file_reads_the_same_from_path_file_url_and_http(folder: Path, server: RangeServer, name: str) -> None:
    expected = local(folder, name)
    for href in (str(folder / name), (folder / name).as_uri(), server.url_of(name)):
        np.testing.assert_array_equal(read(href), expected)


def test_a_window_costs_its_own_bytes_in_few_requests(folder: Path, server: RangeServer) -> None:
    count = TransferCount()
    with open_asset(server.url_of("scene.tif"), ACCESS, count=count) as dataset:
        values = dataset.read(1, window=Window(300, 300, 200, 200))
    np.testing.assert_array_equal(values, local(folder)[300:500, 300:500])
    assert count.requests <= 3
    assert count.bytes < (folder / "scene.tif").stat().st_size / 4


def test_a_small_file_comes_in_two_requests(server: RangeServer) -> None:
    count = TransferCount()
    read(server.url_of("small.tif"), count=count)
    assert count.requests == 2


def test_overviews_read_as_from_disk(folder: Path, server: RangeServer) -> None:
    with rasterio.open(folder / "scene.tif") as disk, open_asset(server.url_of("scene.tif"), ACCESS) as remote:
        assert disk.overviews(1) == remote.overviews(1) != []
        np.testing.assert_array_equal(remote.read(1, out_shape=(256, 256)), disk.read(1, out_shape=(256, 256)))


def test_a_reprojected_view_reads_as_from_disk(folder: Path, server: RangeServer) -> None:
    views = []
    for href in (str(folder / "scene.tif"), server.url_of("scene.tif")):
        with open_asset(href, ACCESS) as dataset, WarpedVRT(dataset, crs="EPSG:3035", warp_mem_limit=64) as view:
            views.append(view.read(1))
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] > 0).mean() > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_passes_with_retries_and_leaves_no_trace_in_the_values(folder: Path, kind: str) -> None:
    faults = Faults(seed=4, share=1.0, times=2, kinds=(kind,), retry_after_s=0, slow_s=0.05)
    count = TransferCount()
    with serve_folder(folder, faults) as server:
        np.testing.assert_array_equal(read(server.url_of("scene.tif"), count=count), local(folder))
        assert server.counts[kind] >= 2
    assert count.retries == (0 if kind == "slow" else server.counts[kind])
    assert count.requests == len(server.requests)


def test_an_answer_slower_than_the_time_out_is_asked_for_again(folder: Path) -> None:
    faults = Faults(share=1.0, times=1, kinds=("slow",), slow_s=0.6)
    hasty = Access(limits=dataclasses.replace(LIMITS, read_timeout_s=0.2))
    count = TransferCount()
    with serve_folder(folder, faults) as server:
        np.testing.assert_array_equal(read(server.url_of("small.tif"), hasty, count=count), local(folder, "small.tif"))
    assert count.retries == 2


def test_all_faults_mixed_over_threads_give_the_file(folder: Path) -> None:
    with serve_folder(folder, Faults(seed=11, share=0.8, times=2, retry_after_s=0, slow_s=0.02)) as server:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: read(server.url_of("scene.tif")), range(16)))
        assert sum(server.counts[kind] for kind in KINDS) >= 2
    expected = local(folder)
    assert all(np.array_equal(values, expected) for values in results)


def test_retry_after_is_honoured(folder: Path) -> None:
    with serve_folder(folder, Faults(share=1.0, times=1, kinds=("429",), retry_after_s=1)) as server:
        read(server.url_of("small.tif"))
        first, second = (when for _, _, _, when in server.requests[:2])
    assert 1.0 <= second - first < 3


def test_a_long_retry_after_is_cut_to_the_limit(folder: Path) -> None:
    access = Access(limits=dataclasses.replace(LIMITS, retry_after_max_s=0.1))
    begin = time.monotonic()
    with serve_folder(folder, Faults(share=1.0, times=1, kinds=("429",), retry_after_s=3600)) as server:
        read(server.url_of("small.tif"), access)
    assert time.monotonic() - begin < 2


def test_a_file_that_never_recovers_is_unavailable_after_all_tries(server: RangeServer) -> None:
    server.never.add("scene.tif")
    with pytest.raises(SourceUnavailable, match=r"scene\.tif could not be read in 5 tries.*503") as caught:
        read(server.url_of("scene.tif"))
    assert caught.value.reason == "unavailable"
    assert len(server.requests) == 5


def test_a_failure_in_the_middle_of_reading_keeps_its_reason(server: RangeServer) -> None:
    def read_while_it_fails() -> None:
        with open_asset(server.url_of("scene.tif"), ACCESS) as dataset:
            server.never.add("scene.tif")
            dataset.read(1)

    with pytest.raises(SourceUnavailable, match="503"):
        read_while_it_fails()
    assert len(server.requests) == 1 + LIMITS.attempts


def test_a_failure_while_reprojecting_keeps_its_reason(server: RangeServer) -> None:
    def reproject_while_it_fails() -> None:
        with open_asset(server.url_of("scene.tif"), ACCESS) as dataset:
            server.never.add("scene.tif")
            target = np.zeros((100, 100), dtype="uint16")
            west, _, _, north = transform_bounds(dataset.crs, "EPSG:3035", *dataset.bounds)
            grid = from_origin(west, north, 100, 100)
            reproject(rasterio.band(dataset, 1), target, dst_transform=grid, dst_crs="EPSG:3035")

    with pytest.raises(SourceUnavailable, match="503"):
        reproject_while_it_fails()


def test_errors_of_the_caller_pass_through(server: RangeServer) -> None:
    def read_and_err() -> None:
        with open_asset(server.url_of("small.tif"), ACCESS) as dataset:
            raise KeyError(dataset.count)

    with pytest.raises(KeyError):
        read_and_err()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "missing-asset"), (410, "missing-asset"), (401, "denied"), (403, "denied"), (400, "unreadable")],
)
def test_a_refusal_is_final_and_named(server: RangeServer, status: int, reason: str) -> None:
    server.statuses["scene.tif"] = status
    with pytest.raises(SourceRejected, match=str(status)) as caught:
        read(server.url_of("scene.tif"))
    assert caught.value.reason == reason
    assert len(server.requests) == 1


def test_no_server_at_all_is_unavailable(server: RangeServer) -> None:
    quick = Access(limits=dataclasses.replace(LIMITS, attempts=2))
    with pytest.raises(SourceUnavailable, match="no connection"):
        read("http://127.0.0.1:9/scene.tif", quick)


def test_a_server_without_ranges_serves_the_file_whole(folder: Path) -> None:
    with serve_folder(folder, serve_ranges=False) as server:
        np.testing.assert_array_equal(read(server.url_of("scene.tif")), local(folder))
        assert len(server.requests) == 1
        small = Access(limits=dataclasses.replace(LIMITS, max_whole_bytes=1000))
        with pytest.raises(SourceRejected, match="does not come in ranges"):
            read(server.url_of("scene.tif"), small)


def test_web_pages_for_good_are_not_taken_for_a_file(folder: Path) -> None:
    with (
        serve_folder(folder, Faults(share=1.0, times=99, kinds=("html",))) as server,
        pytest.raises(SourceUnavailable, match="web page"),
    ):
        read(server.url_of("scene.tif"))


def test_a_file_replaced_while_being_read_is_not_mixed(tmp_path: Path) -> None:
    write_cog(tmp_path / "changing.tif", 1024, seed=5)

    def read_while_it_changes() -> None:
        with serve_folder(tmp_path) as server, open_asset(server.url_of("changing.tif"), ACCESS) as dataset:
            write_cog(tmp_path / "changing.tif", 1024, seed=6)
            dataset.read(1)

    with pytest.raises(SourceUnavailable, match="replaced while"):
        read_while_it_changes()


@pytest.mark.parametrize("how", ["path", "http"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.6])
def test_a_truncated_file_is_unreadable_and_named(folder: Path, tmp_path: Path, how: str, keep: float) -> None:
    data = (folder / "scene.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * keep)])
    with serve_folder(tmp_path) as server, pytest.raises(SourceRejected, match=r"cut\.tif") as caught:
        read(server.url_of("cut.tif") if how == "http" else str(tmp_path / "cut.tif"))
    assert caught.value.reason == "unreadable"


def test_a_corrupt_block_is_unreadable(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "scene.tif").read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = b"\xff" * third
    (tmp_path / "bad.tif").write_bytes(data)
    with pytest.raises(SourceRejected, match=r"bad\.tif is truncated or corrupt"):
        read(str(tmp_path / "bad.tif"))


def test_a_file_of_another_kind_is_refused_before_gdal_sees_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "trick.tif").write_text(f"<VRTDataset><SourceFilename>{folder}/scene.tif</SourceFilename></VRTDataset>")
    with pytest.raises(SourceRejected, match="neither a TIFF nor a JPEG 2000") as caught:
        read(str(tmp_path / "trick.tif"))
    assert caught.value.reason == "unreadable"
    with pytest.raises(SourceRejected, match="does not exist") as caught:
        read(str(tmp_path / "absent.tif"))
    assert caught.value.reason == "missing-asset"


def test_a_jpeg_2000_file_is_read(folder: Path, server: RangeServer) -> None:
    with rasterio.open(folder / "scene.tif") as source:
        options = {**source.profile, "driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
        for name in ("blockxsize", "blockysize", "tiled", "compress", "interleave"):
            options.pop(name, None)
        with rasterio.open(folder / "scene.jp2", "w", **options) as target:
            target.write(source.read())
    expected = local(folder)
    for href in (str(folder / "scene.jp2"), server.url_of("scene.jp2")):
        np.testing.assert_array_equal(read(href), expected)


def test_a_mistake_in_our_own_code_is_not_taken_for_a_bad_file(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    def read_with_a_mistake() -> None:
        with open_asset(server.url_of("scene.tif"), ACCESS) as dataset:
            monkeypatch.setattr(RangeCache, "read", broken)
            dataset.read(1)

    with pytest.raises(ZeroDivisionError, match="ours"):
        read_with_a_mistake()


def test_the_limiter_bounds_requests_at_once(folder: Path) -> None:
    narrow = Access(limits=dataclasses.replace(LIMITS, concurrent=3))
    with serve_folder(folder) as server:
        server.delay_s = 0.02
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda _: read(server.url_of("small.tif"), narrow), range(12)))
        assert server.peak == 3


def test_the_limiter_bounds_requests_per_second(folder: Path) -> None:
    slow = Access(limits=dataclasses.replace(LIMITS, requests_per_s=40))
    with serve_folder(folder) as server:
        begin = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: read(server.url_of("small.tif"), slow), range(10)))
        assert time.monotonic() - begin >= 19 / 40


def test_a_deadline_ends_the_tries(server: RangeServer) -> None:
    server.never.add("scene.tif")
    patient = Access(limits=dataclasses.replace(LIMITS, attempts=100, backoff_s=0.2, backoff_max_s=0.2))
    begin = time.monotonic()
    with pytest.raises(SourceUnavailable) as caught:
        read(server.url_of("scene.tif"), patient, deadline=begin + 0.5)
    assert caught.value.reason == "time-limit"
    assert time.monotonic() - begin < 1


class Signature:
    """Signs with a number that grows each time it is told that the last one was refused."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, href: str) -> str:
        return f"{href}?sig=secret{self.number}"

    def forget(self, href: str) -> None:
        self.number += 1


def test_an_expired_signature_is_renewed_once(folder: Path, server: RangeServer) -> None:
    server.required_query["scene.tif"] = "sig=secret1"
    signed = Access(limits=LIMITS, sign=Signature())
    np.testing.assert_array_equal(read(server.url_of("scene.tif"), signed), local(folder))
    server.required_query["scene.tif"] = "sig=never"
    with pytest.raises(SourceRejected) as caught:
        read(server.url_of("scene.tif"), signed)
    assert caught.value.reason == "denied"


@pytest.mark.parametrize("trouble", ["never", "403", "404", "cut", "connection"])
def test_signatures_reach_neither_messages_nor_logs(
    folder: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    caplog.set_level(logging.DEBUG)
    faults = Faults(share=1.0, times=99, kinds=("cut",)) if trouble == "cut" else None
    with serve_folder(folder, faults) as server:
        href = server.url_of("scene.tif") + "?token=secret"
        if trouble == "never":
            server.never.add("scene.tif")
        if trouble.isdigit():
            server.statuses["scene.tif"] = int(trouble)
        if trouble == "connection":
            href = "http://127.0.0.1:9/scene.tif?token=secret"
        with pytest.raises(SourceError) as caught:
            read(href, Access(limits=LIMITS, sign=lambda url: f"{url}&sig=secret"))
    told = str(caught.value)
    cause = caught.value.__cause__
    while cause is not None and type(cause).__module__.startswith("tasks"):
        told, cause = f"{told} {cause}", cause.__cause__
    assert "secret" not in told + caplog.text
    assert "scene.tif" in told


@pytest.mark.parametrize(
    ("href", "catalog"),
    [
        ("ftp://host/a.tif", ""),
        ("/vsicurl/https://host/a.tif", ""),
        ("gs://bucket/a.tif", ""),
        ("http://host/a.tif", ""),
        ("file:///etc/passwd", "https://host/stac"),
        ("/etc/passwd", "http://127.0.0.1:80/stac"),
        ("http://127.0.0.1/a.tif", "https://host/stac"),
        ("http://169.254.169.254/latest/meta-data", "https://host/stac"),
    ],
)
def test_hrefs_that_reach_too_far_are_denied(href: str, catalog: str) -> None:
    with pytest.raises(SourceRejected, match="was not read") as caught:
        check_href(href, Access(catalog=catalog))
    assert caught.value.reason == "denied"


def test_allowed_hosts_narrow_and_widen() -> None:
    only = Access(allowed_hosts=("data.example.org", "*.blob.example.net", "s3://sentinel-cogs"))
    for href in ("http://data.example.org/a", "https://x.blob.example.net/a", "s3://sentinel-cogs/a"):
        check_href(href, only)
    for href in ("https://example.org/a", "https://blob.example.net.evil.org/a", "s3://other/a"):
        with pytest.raises(SourceRejected, match="the allowed hosts are"):
            check_href(href, only)
    check_href("https://anywhere.org/a", Access(catalog="https://host/stac"))
    check_href("http://127.0.0.1/a", Access(catalog="http://127.0.0.1/stac"))


def test_a_redirect_to_a_host_that_is_not_allowed_is_denied(folder: Path, server: RangeServer) -> None:
    away = Access(limits=LIMITS, allowed_hosts=("127.0.0.1",))
    server.redirects["moved.tif"] = server.url_of("scene.tif")
    server.redirects["away.tif"] = "https://elsewhere.example.org/scene.tif"
    np.testing.assert_array_equal(read(server.url_of("moved.tif"), away), local(folder))
    with pytest.raises(SourceRejected) as caught:
        read(server.url_of("away.tif"), away)
    assert caught.value.reason == "denied"


def test_two_files_open_at_once_in_one_thread_and_files_in_many_threads(folder: Path, server: RangeServer) -> None:
    with open_asset(server.url_of("scene.tif"), ACCESS) as one, open_asset(server.url_of("small.tif"), ACCESS) as two:
        np.testing.assert_array_equal(two.read(1), local(folder, "small.tif"))
        np.testing.assert_array_equal(one.read(1), local(folder))
    expected, barrier = local(folder), threading.Barrier(6)

    def run(_: int) -> bool:
        barrier.wait()
        return np.array_equal(read(server.url_of("scene.tif")), expected)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(6)))


@pytest.mark.server
class TestObjectStore:
    @pytest.fixture
    def bucket(self, folder: Path, s3_warehouse: str) -> str:
        resolve(s3_warehouse).put_file("odd names/scene 1.tif", folder / "scene.tif")
        return s3_warehouse

    def test_an_object_reads_as_from_disk_in_parts(self, folder: Path, bucket: str) -> None:
        count = TransferCount()
        with open_asset(f"{bucket}/odd%20names/scene%201.tif", ACCESS, count=count) as dataset:
            window = dataset.read(1, window=Window(300, 300, 200, 200))
            assert count.bytes < (folder / "scene.tif").stat().st_size / 4
            np.testing.assert_array_equal(dataset.read(1), local(folder))
        np.testing.assert_array_equal(window, local(folder)[300:500, 300:500])

    def test_what_is_missing_empty_or_closed_is_told_apart(self, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        resolve(bucket).write_bytes("empty.tif", b"")
        for name, reason in (("absent.tif", "missing-asset"), ("empty.tif", "unreadable")):
            with pytest.raises(SourceRejected, match=name) as caught:
                read(f"{bucket}/{name}")
            assert caught.value.reason == reason
        monkeypatch.setenv("CANOPUS_ARCHIVE_S3_ENDPOINT", os.environ["AWS_ENDPOINT_URL"])
        monkeypatch.setenv("CANOPUS_ARCHIVE_S3_ANONYMOUS", "1")
        with pytest.raises(SourceRejected, match="access denied") as caught:
            read(f"{bucket}/odd%20names/scene%201.tif")
        assert caught.value.reason == "denied"


class TestObjectStoreInTrouble:
    """An anonymous bucket, played by the range server so that it can fail on cue."""

    @pytest.fixture
    def public(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        (tmp_path / "bucket").mkdir()
        (tmp_path / "bucket" / "scene.tif").write_bytes((folder / "scene.tif").read_bytes())
        return tmp_path

    @pytest.mark.parametrize("kind", ["500", "503", "429", "cut", "reset"])
    def test_faults_pass(self, public: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        with serve_folder(public, Faults(share=1.0, times=2, kinds=(kind,), retry_after_s=0)) as server:
            monkeypatch.setenv("CANOPUS_ARCHIVE_S3_ENDPOINT", server.url)
            np.testing.assert_array_equal(read("s3://bucket/scene.tif"), local(folder))
            assert server.counts[kind] >= 2

    def test_a_bucket_that_stays_down_is_unavailable(self, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_folder(public) as server:
            server.never.add("bucket/scene.tif")
            monkeypatch.setenv("CANOPUS_ARCHIVE_S3_ENDPOINT", server.url)
            with pytest.raises(SourceUnavailable, match=r"s3://bucket/scene\.tif could not be read in 5 tries"):
                read("s3://bucket/scene.tif")
            assert len(server.requests) == 5

    def test_the_archive_need_not_be_the_warehouse(
        self, public: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "warehouse")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("CANOPUS_ARCHIVE_S3_ANONYMOUS", "1")
        with serve_folder(public) as server:
            monkeypatch.setenv("CANOPUS_ARCHIVE_S3_ENDPOINT", server.url)
            np.testing.assert_array_equal(read("s3://bucket/scene.tif"), local(folder))


def test_a_proxy_named_by_the_environment_is_used_and_not_for_exceptions(
    server: RangeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    behind = Access(limits=LIMITS, allowed_hosts=("far.example.org", "127.0.0.1"))
    np.testing.assert_array_equal(read("http://far.example.org/scene.tif", behind), local(folder))
    assert server.requests[0][1] == "http://far.example.org/scene.tif"
    read(server.url_of("scene.tif"), behind)
    assert server.requests[-1][1] == "/scene.tif"
