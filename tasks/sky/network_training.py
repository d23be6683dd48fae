"""Train the profile network on generated galaxies, and on real ones that isophotes measured; calibrate, score and save it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import Subject
from models.profile_network import ProfileExample, ProfileNet, ProfileNetConfig
from models.training import TrainConfig
from storage.location import Location, resolve
from storage.locks import hold
from storage.manifest import Run
from tasks.earth.model_files import save_network
from tasks.earth.model_folders import require_name
from tasks.earth.processes import Team, team
from tasks.earth.series_batches import device_of
from tasks.earth.training_run import Trained, as_it_was, find_or_start, finished
from tasks.errors import ConfigurationError
from tasks.pools import POOLS
from tasks.sky.network_calibration import calibrate
from tasks.sky.network_pool import GALAXIES, Pool, PooledProfiles, Shard, gather
from tasks.sky.network_profiles import KIND
from tasks.sky.network_real import read_real
from tasks.sky.training_pieces import Piece, Progress, TrainingInPieces

_OTHER_SEED = 1_000_003
"""Between the seed of what is trained on and of what is held out."""
_CALIBRATION_SEED = 2_000_003
_BUSY_S = 5.0
"""How long another process may still hold the run."""
_TRUSTED_SIGNAL = 10.0


@dataclass(frozen=True)
class ProfileNetRequest:
    """What is trained, on what, and how.

    Parameters
    ----------
    warehouse : str
        URL, of a folder.
    name : str
        Of the model.
    train : TrainConfig
        How.
    model : ProfileNetConfig
        Size of the network.
    batch : int
        Examples of one update.
    shards, shard_size : int
        How many, of so many generated galaxies each; they are drawn as the training goes on.
    updates_per_shard : int
        After so many updates there is one shard more to draw from.
    seed : int
        Of the galaxies.
    real : tuple of str
        Products of profiles that isophotes measured; their cutouts lie in this warehouse.
    real_share : float
        Of the examples, where there are real ones.
    calibrated_on : int
        Generated galaxies that set errors and the bounds of what is strange.
    minutes : float or None
        Of this piece; None to the end.
    device : str or None
        ``cpu`` or ``cuda``; None for a GPU where there is one.
    fresh : bool
        Whether to begin anew where the same training was done or begun before.
    """

    warehouse: str
    name: str
    train: TrainConfig
    model: ProfileNetConfig = field(default_factory=ProfileNetConfig)
    batch: int = 64
    shards: int = 90
    shard_size: int = GALAXIES
    updates_per_shard: int = 20
    seed: int = 1
    real: tuple[str, ...] = ()
    real_share: float = 0.2
    calibrated_on: int = 2048
    minutes: float | None = None
    device: str | None = None
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, for the run's manifest."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


def train_profile_net(request: ProfileNetRequest, on_progress: Progress | None = None) -> Trained:
    """Train the network, or go on where a training of the same request stopped; save and return it.

    Raises
    ------
    ConfigurationError
        Where the warehouse is no folder, real profiles cannot be used, or the loss does not stay finite.
    """
    require_name(request.name)
    root = resolve(request.warehouse)
    if root.local_path is None:
        raise ConfigurationError(
            f"{root}: drawn galaxies are kept in a folder; train in a warehouse on disk, then copy models/{request.name}"
        )
    real = read_real(root, request.real) if request.real else None
    subject = Subject(request.train, KIND, asdict(request.model), _decisive(request, real))
    done = None if request.fresh else finished(root, request.name, subject)
    if done is not None:
        return as_it_was(root, request.name, *done)
    run = find_or_start(root, request.name, subject, request.to_json(), fresh=request.fresh)
    with team(request.train.parallel, request.device) as crew, hold(run.location, _BUSY_S):
        return _train(request, crew, root, run, subject, real, on_progress)


def _decisive(request: ProfileNetRequest, real: Shard | None) -> dict[str, Any]:
    """Return what decides about the weights beside settings and size."""
    told = {name: getattr(request, name) for name in ("batch", "shards", "shard_size", "updates_per_shard", "seed")}
    if real is None:
        return told
    return {**told, "real": list(request.real), "real_share": request.real_share, "real_galaxies": len(real)}


def _train(
    request: ProfileNetRequest,
    crew: Team,
    root: Location,
    run: Run,
    subject: Subject,
    real: Shard | None,
    on_progress: Progress | None,
) -> Trained:
    assert root.local_path is not None
    folder = Path(root.local_path) / POOLS / "profiles"
    held_out = held_out_examples(Pool(folder, request.seed + _OTHER_SEED, request.shard_size).shard(0))
    batches = PooledProfiles(
        Pool(folder, request.seed, request.shard_size),
        batch=request.batch,
        shards=request.shards,
        seed=request.train.seed,
        positions_per_shard=request.updates_per_shard,
        real=real,
        real_share=request.real_share,
    )

    def judge(weights: Mapping[str, Tensor]) -> float:
        return scores_of(_model_of(request.model, weights, crew), held_out)["loss"]

    piece = Piece(request.name, request.train, request.minutes, unit="radii")
    training = TrainingInPieces(piece, crew, run, subject, judge=judge, on_progress=on_progress)
    model = ProfileNet(request.model, generator=torch.Generator().manual_seed(request.train.seed)).to(crew.device)
    end = training.go(model, batches)
    best = _model_of(request.model, end.weights, crew).cpu()
    found = calibrate(best, request.calibrated_on, seed=request.seed + _CALIBRATION_SEED)
    metrics = {"held_out_loss": [list(one) for one in training.losses], **scores_of(best, held_out), **found}
    told = {**training.summary(), "data": subject.data, "facts": _facts(request, real)}
    reference = save_network(
        root,
        request.name,
        best,
        kind=KIND,
        config=asdict(request.model),
        metrics=metrics,
        training=told,
        card=write_card(best, told, metrics),
    )
    curve = training.close(reference)
    return Trained(reference, run.id, metrics, told, curve, tuple(training.notes))


def _model_of(config: ProfileNetConfig, weights: Mapping[str, Tensor], crew: Team) -> ProfileNet:
    model = ProfileNet(config)
    model.load_state_dict(weights)
    return model.to(crew.device).eval()


def held_out_examples(shard: Shard) -> list[ProfileExample]:
    """Return a shard's galaxies as batches of 64, the same ones each time."""
    return [
        gather(
            [shard],
            np.array([(0, row) for row in range(first, min(first + 64, len(shard)))]),
            np.random.default_rng(first),
        )
        for first in range(0, len(shard), 64)
    ]


@torch.inference_mode()
def scores_of(model: ProfileNet, examples: list[ProfileExample]) -> dict[str, float]:
    """Return loss, and the RMS error in mag of profiles and of the plain weighted means where an annulus has S/N above 10."""
    device = device_of(model)
    losses: list[float] = []
    errors: list[Tensor] = []
    plain: list[Tensor] = []
    for held in examples:
        batch = held.to(device)
        losses.append(float(model.loss(batch, generator=torch.Generator(device=device))))
        reading = model.read(batch.polar, batch.use, batch.band)
        asked = batch.profile_counts[:, None] & (batch.truth > _TRUSTED_SIGNAL * reading.error)
        for found, kept in ((reading.intensity[..., 1], errors), (reading.measured, plain)):
            apart = 2.5 * torch.log10((found / batch.truth).clamp(min=0.1))
            kept.append(torch.where(asked, apart.square(), torch.nan).nanmean(dim=-1).sqrt())
    each, other = torch.cat(errors), torch.cat(plain)
    each = each[each.isfinite()]
    return {
        "loss": sum(losses) / len(losses),
        "rms_median": float(each.median()),
        "rms_p90": float(each.quantile(0.9)),
        "plain_rms_median": float(other.nanmedian()),
    }


def _facts(request: ProfileNetRequest, real: Shard | None) -> list[str]:
    facts = [
        f"{request.shards * request.shard_size:,} generated galaxies (bench_full, an eighth bench_simple), 64 to 256 pixels of 0.18 to 1.0 "
        "arcsec, each about three ellipses, turned and mirrored; any of their bands"
    ]
    if real is not None:
        facts.append(
            f"{len(real):,} real galaxies as isophotes measured them, {request.real_share:.0%} of the examples"
        )
    return facts


def write_card(model: ProfileNet, training: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the card of a trained network, in Markdown, without a title."""
    size = sum(parameter.numel() for parameter in model.parameters())
    cost, bands = training["cost"], metrics["calibration"]
    lines = [
        "Surface-brightness profiles of galaxies from images of any bands, size and pixel scale (Pix2Prof by default): cells along "
        f"ellipses, a transformer along radius, intensities at 16, 50 and 84 %. {size:,} parameters.",
        "",
        "## Trained on",
        "",
        *(f"- {line}" for line in training["facts"]),
        "",
        "## Training",
        "",
        f"- {training['steps']:,} updates of {training['data']['batch']} examples, {training['minutes']:.1f} minutes on "
        f"{training['device']}",
        f"- {cost['cpu_hours']:.3g} CPU-hours, {cost['gpu_hours']:.3g} GPU-hours; weights: their average at the end",
        "",
        "## Scores on generated galaxies of another seed",
        "",
        f"- RMS error where an annulus has S/N above 10: median {metrics['rms_median']:.3f}, 90th percentile {metrics['rms_p90']:.3f} mag; "
        f"of the plain weighted means {metrics['plain_rms_median']:.3f}",
        "- 68 % intervals held, by S/N of a ring one pixel wide, after calibration: "
        + ", ".join(f"{name}: {found['held']:.0%}" for name, found in bands.items())
        + "; of galaxies that are one Sersic law in white noise: "
        + ", ".join(f"{name}: {found['held_plain']:.0%}" for name, found in bands.items()),
        "",
        "docs/evaluation.md scores it by the protocol, on real galaxies too.",
        "",
        "## Limits",
        "",
        "It learned along one ellipse for each galaxy, the outer disc's; isophotes of their own (`--geometry free`) are fitted to the same "
        "cells. What is unlike generated galaxies is flagged, and `--method auto` measures it by isophotes. Galaxies larger than the "
        "image leave the sky a guess.",
    ]
    return "\n".join(lines)
