"""benchmarks/gpu.py: what it says without a GPU, that it runs, and that it changes nothing on a page but its block."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import (
    BEGIN,
    END,
    LEAST_UPDATES,
    NO_GPU,
    SIZES,
    STEPS,
    WARM_UP,
    Enough,
    Row,
    Stopwatch,
    largest_that_fits,
    main,
    replace_block,
    table,
    write_store,
)
from benchmarks.gpu_diffusion import DIFFUSION_SIZES, evaluation_flops
from models.data import ShuffledTokens
from models.training import StepReport

PAGE = Path(__file__).parent.parent / "docs/performance.md"
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@without_gpu
@pytest.mark.parametrize("more", [[], ["--write", str(PAGE)]])
def test_without_a_gpu_it_says_so_and_measures_nothing(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = PAGE.read_text()
    assert main(["--sizes", "small", *more]) == 0
    assert capsys.readouterr().out == f"{NO_GPU}\n"
    assert PAGE.read_text() == before


@without_gpu
def test_without_a_gpu_the_object_has_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"device": None, "rows": []}


def test_the_smoke_test_trains_answers_and_rolls_out_and_is_marked_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cpu", "--json", "--seconds", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "smoke test on a CPU, not a measurement:"
    found = json.loads(lines[-1])
    assert (found["device"], found["smoke"], found["peak_flops"]) == ("CPU", True, None)
    small, published = found["rows"]
    for row in (small, published):
        assert row["tokens_per_second"] > 0
        assert 0 <= row["wait_share"] <= 1
        assert row["mfu"] is None
    assert set(found["profiles"]) == {"in the device's memory", "from a sky store"}
    assert min(found["profiles"].values()) > 0
    assert small["answers_per_second"] > 0
    assert small["mapped_per_second"] > 0
    assert published["rollout_per_second"] > 0
    for row in found["diffusion"]:
        assert min(row["trained_per_second"], row["sampled_per_second"]) > 0
        assert row["mfu"] is None


def test_the_sizes_are_those_of_the_paper() -> None:
    published = {name: sum(p.numel() for p in SIZES[name].build().parameters()) for name in ("100M",)}
    assert published == {"100M": pytest.approx(86e6, rel=0.02)}
    assert (SIZES["700M"].config.layers, SIZES["700M"].config.heads, SIZES["700M"].config.width) == (36, 20, 1280)


def test_diffusion_models_are_counted_by_their_convolutions() -> None:
    """The published network at 256 pixels: its first convolution alone is 2 x 27 x 64 operations a pixel."""
    small, large, published = (evaluation_flops(size) for size in DIFFUSION_SIZES)
    assert 0.2e9 < small < 0.4e9
    assert large > 20 * small
    assert published > 100e9


def test_series_are_streamed_whole_and_are_more_than_is_held(tmp_path: Path) -> None:
    source = write_store(tmp_path / "tokens", shards=10, shard=16)
    batches = ShuffledTokens(source, 8)
    assert sum(source.sizes) == 160
    assert len(source.sizes) > 2 * batches.window
    batch = batches.at(3)
    assert batches.tokens(batch) == 8 * STEPS
    assert batch.valid.all()
    assert not batch.values.isnan().any()
    assert bool((batch.position[:, 1:, 0] == batch.position[:, :-1, 1]).all())
    drawn = np.concatenate([batches.rows(position) for position in range(20)])
    assert len(np.unique(drawn, axis=0)) == 160


@pytest.mark.parametrize(("room", "series"), [(100, 64), (63, 32), (1, 1)])
def test_batches_are_halved_until_they_fit(room: int, series: int) -> None:
    def attempt(count: int) -> str:
        if count > room:
            raise torch.OutOfMemoryError(f"no room for {count}")
        return f"{count} fit"

    assert largest_that_fits(attempt, 64) == (series, f"{series} fit")


def test_a_model_without_room_for_one_series_is_a_row_not_a_crash() -> None:
    def attempt(count: int) -> str:
        raise torch.OutOfMemoryError("no room")

    assert largest_that_fits(attempt, 64) is None
    assert "out of memory" in table([Row("700M", "published", 708_000_000, 0, 8)])


def test_another_error_is_not_taken_for_a_full_memory() -> None:
    def attempt(count: int) -> str:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_that_fits(attempt, 64)


def update(step: int, seconds: float) -> StepReport:
    return StepReport(step, step, 10, 1.0, 1e-3, 1.0, seconds, 0.0, 0.0)


def test_the_clock_leaves_warm_up_out_and_stops_when_there_is_enough() -> None:
    watch = Stopwatch(seconds=20.0)
    for step in range(1, WARM_UP + 1):
        watch(update(step, 300.0))
    for step in range(WARM_UP + 1, WARM_UP + 7):
        watch(update(step, 3.0))
    with pytest.raises(Enough):  # 7 x 3 s are the first that make 20 s
        watch(update(WARM_UP + 7, 3.0))
    assert watch.elapsed_s == 21.0


def test_some_updates_are_timed_however_slow() -> None:
    watch = Stopwatch(seconds=1.0)
    for step in range(WARM_UP + 1, WARM_UP + LEAST_UPDATES):
        watch(update(step, 50.0))
    with pytest.raises(Enough):
        watch(update(WARM_UP + LEAST_UPDATES, 50.0))


def test_a_block_is_replaced_and_nothing_else() -> None:
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    once = replace_block(page, "new\n\n| a |")
    assert once == f"above\n{BEGIN}\nnew\n\n| a |\n{END}\nbelow\n"
    assert replace_block(once, "old") == page


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        replace_block(page, "new")


def test_the_page_on_performance_has_the_block() -> None:
    assert "x y z" in replace_block(PAGE.read_text(), "x y z")


@pytest.mark.parametrize("wrong", [["--sizes", "12B"], ["--cpu", "--write", str(PAGE)]])
def test_what_cannot_be_measured_is_a_usage_error(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(wrong)
    assert stopped.value.code == 2
