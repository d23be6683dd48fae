"""What one GPU makes of EarthPT, the diffusion models and the profile network.

``python benchmarks/gpu.py [--sizes small,100M,700M] [--json] [--write docs/performance.md]``

Training goes through `models.training.fit`: bf16 autocast, torch.compile, batches streamed from a token store that is
written for the occasion and of which at most a few shards are in memory at once. Then forecasts are timed: answers for
whole series, and roll-outs with kept keys and values. MFU is what `models.flops` counts over the GPU's peak.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.canopy import CanopyConfig, CanopyNet
from models.data import ShuffledTokens
from models.earthpt import EarthPT, EarthPTConfig, to_channels
from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.flops import earthpt_flops, peak_flops, published_flops
from models.indices import BANDS
from models.tokens import HALF_RANGE, Tokens
from models.training import StepReport, TrainConfig, fit
from storage.location import resolve
from storage.tokens import TokenAxis, TokenBlock, TokenChannel, TokenSchema, open_tokens, write_tokens
from tasks.earth.tokens import StoredTokens

if TYPE_CHECKING:
    from benchmarks.gpu_diffusion import DiffusionRow

NO_GPU = "no GPU here: nothing is measured (--cpu runs a small smoke test that says nothing about a GPU)"
BEGIN, END = "<!-- gpu table -->", "<!-- end of gpu table -->"
STEPS, COMING, AHEAD = 226, 30, 12
"""Looks of a series, steps of a roll-out, days that are asked for."""
WARM_UP, LEAST_UPDATES = 5, 5
"""Updates before the clock runs (compilation is among them), and updates that are timed at least."""
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """A model to measure.

    Parameters
    ----------
    name : str
    config : EarthPTConfig or PublishedEarthPTConfig
        Architecture and size.
    series : int
        Of one batch, halved until it fits.
    accumulation : int
        Batches of one update.
    """

    name: str
    config: EarthPTConfig | PublishedEarthPTConfig
    series: int
    accumulation: int = 1

    def build(self) -> EarthPT | PublishedEarthPT:
        """Return the model, in the host's memory."""
        return EarthPT(self.config) if isinstance(self.config, EarthPTConfig) else PublishedEarthPT(self.config)


@dataclass(frozen=True)
class Plan:
    """How sizes are measured.

    Parameters
    ----------
    device : torch.device
    sizes : tuple of Size
    seconds : float
        Of each measurement, after warm-up.
    shards, shard : int
        Of the token store, and samples of each.
    precision, compiled : str, bool
        As in `TrainConfig`.
    """

    device: torch.device
    sizes: tuple[Size, ...]
    seconds: float
    shards: int
    shard: int
    precision: str
    compiled: bool

    @property
    def on_gpu(self) -> bool:
        """Return whether this measures a GPU."""
        return self.device.type == "cuda"

    @property
    def device_name(self) -> str:
        """Return the name of what is measured."""
        return torch.cuda.get_device_name(self.device) if self.on_gpu else "CPU"


@dataclass(frozen=True)
class Row:
    """What was measured of one size.

    Parameters
    ----------
    size, architecture : str
    parameters : int
    series, accumulation : int
        Of a batch that fits, and batches of one update.
    tokens_per_second : float or None
        Looks trained on; None where not even one series fits.
    mfu : float or None
        Of the dense bf16 peak; None where that is not known.
    wait_share : float or None
        Of the time, spent waiting for data.
    memory_gb : float or None
        Most that was in use on the GPU.
    answers_per_second, mapped_per_second, rollout_per_second : float or None
        Series answered for `AHEAD` days; pixels mapped by a canopy head, which asks about as many; tokens rolled out; None
        for the other architecture.
    """

    size: str
    architecture: str
    parameters: int
    series: int
    accumulation: int
    tokens_per_second: float | None = None
    mfu: float | None = None
    wait_share: float | None = None
    memory_gb: float | None = None
    answers_per_second: float | None = None
    mapped_per_second: float | None = None
    rollout_per_second: float | None = None


SIZES = {
    "small": Size("small", EarthPTConfig(), 2048),
    "100M": Size("100M", PublishedEarthPTConfig(12, 12, 768), 512, accumulation=2),
    "700M": Size("700M", PublishedEarthPTConfig(), 128, accumulation=8),
}
SMOKE = (Size("small", EarthPTConfig(1, 2, 16), 16), Size("published", PublishedEarthPTConfig(1, 2, 16), 16))


# --- the token store ------------------------------------------------------------------------------------------------


def write_store(folder: Path, *, shards: int, shard: int) -> StoredTokens:
    """Write made-up series of full length, hard to pack and without gaps, and return them as a source of batches."""
    rng = np.random.default_rng(0)
    schema = TokenSchema(
        STEPS,
        tuple(TokenChannel(band, "1", HALF_RANGE * 1e-4, HALF_RANGE * 1e-4) for band in BANDS),
        (TokenAxis("day", "days since 2000-01-01"), TokenAxis("target_day", "days since 2000-01-01")),
        ("row", "column"),
        divisor=HALF_RANGE,
        offset=-1.0,
        shard=shard,
    )
    with write_tokens(resolve(folder), schema, {"made_up": "random walks"}) as writer:
        for number in range(shards):
            writer.write(str(number), _series(rng, shard), {})
    return StoredTokens(open_tokens(resolve(folder)))


def _series(rng: np.random.Generator, count: int) -> TokenBlock:
    moves = rng.integers(-200, 201, (count, STEPS, len(BANDS)))
    stored = (2500 + moves.cumsum(axis=1)).clip(1, 9999).astype(np.float32)
    day = 8000 + rng.integers(2, 9, (count, STEPS + 1)).cumsum(axis=1).astype(np.float32)
    position = np.stack([day[:, :-1], day[:, 1:]], axis=-1)
    values = stored / np.float32(HALF_RANGE) - np.float32(1)
    return TokenBlock(values, position, np.ones((count, STEPS), bool), np.zeros((count, 2), np.int32))


# --- measuring ------------------------------------------------------------------------------------------------------


class Enough(Exception):
    """Enough updates were timed."""


class Stopwatch:
    """Keeps the reports of the updates after warm-up, and ends training when there are enough."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.reports: list[StepReport] = []

    def __call__(self, report: StepReport) -> None:
        """Take a report."""
        if report.step > WARM_UP:
            self.reports.append(report)
        if len(self.reports) >= LEAST_UPDATES and self.elapsed_s >= self.seconds:
            raise Enough

    @property
    def elapsed_s(self) -> float:
        """Return the time of the updates kept."""
        return sum(report.seconds for report in self.reports)


def measure(plan: Plan, size: Size, source: StoredTokens) -> Row:
    """Return what one size does, with the largest batch that fits."""
    model = size.build()
    found = largest_that_fits(partial(_train, plan, size, source, model), size.series)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kind = "default" if isinstance(model, EarthPT) else "published"
    if found is None:
        return Row(size.name, kind, parameters, 0, size.accumulation)
    series, watch = found
    memory = torch.cuda.max_memory_allocated(plan.device) / 1e9 if plan.on_gpu else None
    tokens = sum(report.tokens for report in watch.reports)
    flops = _flops(model, series) / (series * STEPS)
    peak = peak_flops(plan.device_name)
    pace = tokens / watch.elapsed_s
    paces = _infer(plan, model.eval(), series)
    return Row(
        size.name,
        kind,
        parameters,
        series,
        size.accumulation,
        pace,
        pace * flops / peak if peak else None,
        sum(report.wait_seconds for report in watch.reports) / watch.elapsed_s,
        memory,
        *paces,
    )


def largest_that_fits(attempt: Callable[[int], T], series: int) -> tuple[int, T] | None:
    """Return the first of `series`, half of it, a quarter, ... that memory has room for, and what came of it.

    None where there is no room for one.
    """
    while series:
        try:
            return series, attempt(series)
        except torch.OutOfMemoryError:
            pass
        # outside of the handler: the error holds on to what the attempt had
        _free()
        series //= 2
    return None


def _free() -> None:
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _train(plan: Plan, size: Size, source: StoredTokens, model: EarthPT | PublishedEarthPT, series: int) -> Stopwatch:
    watch = Stopwatch(plan.seconds)
    model.zero_grad(set_to_none=True)
    config = TrainConfig(
        steps=10**9,
        learning_rate=1e-4,
        accumulation=size.accumulation,
        precision="bf16" if plan.precision == "bf16" else "float32",
        compile=plan.compiled,
        log_every=1,
    )
    try:
        fit(model.to(plan.device).train(), ShuffledTokens(source, series), config, on_step=watch)
    except Enough:
        model.zero_grad(set_to_none=True)
    return watch


def _flops(model: EarthPT | PublishedEarthPT, series: int) -> float:
    if isinstance(model, EarthPT):
        return earthpt_flops(model, series=series, steps=STEPS)
    return published_flops(model, series=series, steps=STEPS)


def _infer(
    plan: Plan, model: EarthPT | PublishedEarthPT, series: int
) -> tuple[float | None, float | None, float | None]:
    """Return series answered, pixels mapped and tokens rolled out per second, each by the architecture that does it."""
    if isinstance(model, EarthPT):
        net = CanopyNet(CanopyConfig(**asdict(model.config), months=AHEAD)).to(plan.device).eval()
        net.backbone = model
        return (
            _series_a_second(plan, partial(_answer, model), series),
            _series_a_second(plan, partial(_map, net), series),
            None,
        )
    steps = _series_a_second(plan, partial(_roll_out, model), series)
    return None, None, None if steps is None else steps * COMING


def _series_a_second(plan: Plan, run: Callable[[Tokens], Tensor], series: int) -> float | None:
    _free()
    found = largest_that_fits(partial(_pace, plan, run), series)
    return found[0] * found[1] if found else None


def _pace(plan: Plan, run: Callable[[Tokens], Tensor], series: int) -> float:
    """Return how often a second a run over so many series is done."""
    block = _series(np.random.default_rng(1), series)
    tokens = Tokens(*(torch.from_numpy(part) for part in (block.values, block.position, block.valid))).to(plan.device)
    cast = torch.autocast(plan.device.type, torch.bfloat16) if plan.precision == "bf16" else nullcontext()
    with torch.inference_mode(), cast:
        run(tokens)
        begun, done = _now(plan), 0
        while not done or _now(plan) - begun < plan.seconds:
            run(tokens)
            done += 1
        return done / (_now(plan) - begun)


def _now(plan: Plan) -> float:
    if plan.on_gpu:
        torch.cuda.synchronize(plan.device)
    return time.perf_counter()


def _answer(model: EarthPT, tokens: Tokens) -> Tensor:
    day = tokens.position[..., 0]
    ahead = day.max() + 10.0 * torch.arange(1, AHEAD + 1, device=day.device)
    return model.answer_ahead(to_channels(tokens.values), day, tokens.valid, ahead=ahead.expand(len(day), -1))


def _map(net: CanopyNet, tokens: Tokens) -> Tensor:
    """Return the logits of pixels that lie in one row of a map."""
    features = net.features(to_channels(tokens.values), tokens.position[..., 0], tokens.valid)
    return net.logits(F.pad(features.T[None, :, None], (net.halo,) * 4))


def _roll_out(model: PublishedEarthPT, tokens: Tokens) -> Tensor:
    days = tokens.position.max() + 5.0 * torch.arange(1, COMING + 1, device=tokens.position.device)
    return model.forecast(tokens, days)


# --- saying it ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    head = (
        "size", "architecture", "parameters", "batch", "training, tokens/s", "MFU", "waiting for data", "memory",
        "answers, series/s", "canopy, pixels/s", "roll-out, tokens/s",
    )  # fmt: skip
    lines = [head, ("---",) * len(head), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.size,
        row.architecture,
        f"{row.parameters / 1e6:.1f}M",
        f"{row.series} x {row.accumulation}" if row.series else "out of memory",
        _number(row.tokens_per_second, "{:,.0f}"),
        _number(row.mfu, "{:.1%}"),
        _number(row.wait_share, "{:.1%}"),
        _number(row.memory_gb, "{:.1f} GB"),
        _number(row.answers_per_second, "{:,.0f}"),
        _number(row.mapped_per_second, "{:,.0f}"),
        _number(row.rollout_per_second, "{:,.0f}"),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def heading(plan: Plan) -> str:
    """Return a sentence that says what was measured, where and how."""
    peak = peak_flops(plan.device_name)
    against = f"peak {peak / 1e12:.0f} TFLOP/s dense" if peak else "its peak is not in the table, so MFU is not given"
    samples = plan.shards * plan.shard
    how = f"{plan.precision}, torch.compile {'on' if plan.compiled else 'off'}"
    return (
        f"{plan.device_name} ({against}), torch {torch.__version__}, {how}, {date.today()}; {samples:,} series of "
        f"{STEPS} looks streamed from Zarr; batch is series x accumulation."
    )


def replace_block(text: str, block: str) -> str:
    """Return a page with what stands between the two markers replaced.

    Raises
    ------
    ValueError
        Where the markers are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise ValueError(f"expected {BEGIN} and, after it, {END}, once each")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser, asked = _arguments(arguments)
    plan = _plan(asked)
    if plan is None:
        print(NO_GPU)
        if asked.json:
            print(json.dumps({"device": None, "rows": []}))
        return 0
    page = None
    if asked.write is not None:
        try:
            page = asked.write.read_text()
            replace_block(page, "")
        except (OSError, ValueError) as error:
            parser.error(f"--write {asked.write}: {error}")
    rows = _measure_all(plan)
    images = _measure_diffusion(plan)
    profiles = _measure_profiles(plan)
    block = "\n\n".join([heading(plan), table(rows), _diffusion_table(images), _profile_lines(profiles)])
    print(block if plan.on_gpu else f"smoke test on a CPU, not a measurement:\n{block}")
    if page is not None:
        asked.write.write_text(replace_block(page, block))
    if asked.json:
        found = {"device": plan.device_name, "smoke": not plan.on_gpu, "peak_flops": peak_flops(plan.device_name)}
        told = {
            "rows": [asdict(row) for row in rows],
            "diffusion": [asdict(row) for row in images],
            "profiles": profiles,
        }
        print(json.dumps({**found, "torch": torch.__version__, **told}))
    return 0


def _measure_all(plan: Plan) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="canopus-gpu-") as folder:
        source = write_store(Path(folder) / "tokens", shards=plan.shards, shard=plan.shard)
        for size in plan.sizes:
            print(f"measuring {size.name}", file=sys.stderr)
            _free()
            rows.append(measure(plan, size, source))
    return rows


def _measure_diffusion(plan: Plan) -> list[DiffusionRow]:
    # run as a file, this folder's parent is on the path only once `main` is called
    from benchmarks.gpu_diffusion import DIFFUSION_SIZES, DIFFUSION_SMOKE, measure_diffusion

    rows = []
    for size in DIFFUSION_SIZES if plan.on_gpu else DIFFUSION_SMOKE:
        print(f"measuring {size.name}", file=sys.stderr)
        _free()
        rows.append(
            measure_diffusion(plan.device, size, plan.seconds, precision=plan.precision, compiled=plan.compiled)
        )
    return rows


def _diffusion_table(rows: Sequence[DiffusionRow]) -> str:
    from benchmarks.gpu_diffusion import diffusion_table

    return diffusion_table(rows)


def _measure_profiles(plan: Plan) -> dict[str, float]:
    from benchmarks.gpu_profiles import profile_paces

    print("measuring profiles", file=sys.stderr)
    _free()
    with tempfile.TemporaryDirectory(prefix="canopus-gpu-") as folder:
        return profile_paces(plan.device, Path(folder), batch=512 if plan.on_gpu else 4, seconds=plan.seconds)


def _profile_lines(paces: Mapping[str, float]) -> str:
    found = "; ".join(f"{name} {pace:,.0f}" for name, pace in paces.items())
    return f"Profiles by the network, 256-pixel g, r, z images, galaxies/s: {found}."


def _arguments(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description="Training and forecasts of EarthPT on one GPU.")
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"of {', '.join(SIZES)}; by default all")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement, after warm-up")
    parser.add_argument("--shards", type=int, default=64, help="of 4,096 series, 27 MB each, in the token store")
    parser.add_argument("--json", action="store_true", help="last line is one JSON object")
    parser.add_argument("--write", type=Path, metavar="PAGE", help=f"put the table into a page, after {BEGIN}")
    parser.add_argument("--cpu", action="store_true", help="a small smoke test on the CPU, not a measurement")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.sizes.split(",") if name not in SIZES]
    if unknown:
        parser.error(f"--sizes {','.join(unknown)}: sizes are {', '.join(SIZES)}")
    if asked.cpu and asked.write:
        parser.error("--cpu measures nothing that belongs on a page; leave --write out")
    return parser, asked


def _plan(asked: argparse.Namespace) -> Plan | None:
    """Return what is to be measured, None where there is no GPU and no smoke test is wanted."""
    if asked.cpu:
        return Plan(torch.device("cpu"), SMOKE, min(asked.seconds, 0.2), 10, 32, "float32", False)
    if not torch.cuda.is_available():
        return None
    sizes = tuple(SIZES[name] for name in asked.sizes.split(","))
    precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return Plan(torch.device("cuda", 0), sizes, asked.seconds, asked.shards, 4096, precision, True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    sys.exit(main())
