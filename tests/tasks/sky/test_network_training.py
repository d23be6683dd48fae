"""The profile network's training: in pieces, saved with card and calibration, and then a method like the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sky_cases import sersic_cutout

from models.profile_network import ProfileNet, ProfileNetConfig
from models.training import TrainConfig
from storage.location import resolve
from tasks.earth.model_files import load_network
from tasks.earth.training_run import Trained
from tasks.errors import ConfigurationError, UsageError
from tasks.sky.methods import Weights, open_method, pin_model
from tasks.sky.network_pool import Pool
from tasks.sky.network_profiles import NetworkMethod
from tasks.sky.network_training import (
    ProfileNetRequest,
    held_out_examples,
    scores_of,
    train_profile_net,
)

SMALL = ProfileNetConfig(channels=8, depth=1, width=16, layers=1, heads=2)


def request(root: Path, **changes: object) -> ProfileNetRequest:
    asked = ProfileNetRequest(
        str(root),
        "mine",
        TrainConfig(steps=4, learning_rate=2e-3, warmup_steps=2, ema_decay=0.9, checkpoint_every=2, log_every=1),
        model=SMALL,
        batch=4,
        shards=2,
        shard_size=32,
        updates_per_shard=3,
        calibrated_on=64,
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warehouse")


@pytest.fixture(scope="module")
def trained(root: Path) -> Trained:
    for _ in range(2):
        found = train_profile_net(request(root, minutes=0.0))
    return found


def test_pieces_end_with_a_saved_model_its_scores_and_its_card(root: Path, trained: Trained) -> None:
    assert trained.training["steps"] == 4
    assert [step for step, _ in trained.metrics["held_out_loss"]] == [2, 4]
    assert any("went on from update 2" in note for note in trained.notes)
    assert set(trained.metrics["calibration"]) == {"0-3", "3-10", "10-30", "30-100", ">100"}
    assert 0 < trained.metrics["rms_median"] < 1
    network = load_network(resolve(root), "mine")
    assert isinstance(network.model, ProfileNet)
    assert network.model.config == SMALL
    assert float(network.model.strange_from) == pytest.approx(trained.metrics["strange_from"])
    factors = [found["factor"] for found in trained.metrics["calibration"].values()]
    assert network.model.calibration.tolist() == pytest.approx(factors)
    card = (Path(root) / "models" / "mine" / network.reference.version / "card.md").read_text()
    assert "4 updates of 4 examples" in card
    assert "64 generated galaxies" in card


def test_the_same_request_again_is_no_work(root: Path, trained: Trained) -> None:
    again = train_profile_net(request(root))
    assert again.reference == trained.reference
    assert "asked the same and is done" in again.notes[0]


def test_drawn_galaxies_are_kept_in_the_warehouse(root: Path, trained: Trained) -> None:
    assert len(list((root / "pools" / "profiles").glob("1-32-*.safetensors"))) == 2


def test_what_was_trained_measures_galaxies(root: Path, trained: Trained) -> None:
    name = pin_model(str(root), "network", "mine")
    assert name == f"mine/{trained.reference.version}"
    method = open_method("network", weights=Weights(str(root), name))
    assert isinstance(method, NetworkMethod)
    profiles = method.measure(sersic_cutout(side=96, half_light=3.0, index=1.0), time_limit_s=60)
    assert [profile.method for profile in profiles] == ["network"] * len(profiles)
    assert all(profile.radius_arcsec.size > 10 for profile in profiles)


def test_scores_of_an_untrained_network_are_those_of_plain_means(root: Path, trained: Trained) -> None:
    held_out = held_out_examples(Pool(root / "pools" / "profiles", 1, 32).shard(0))
    scores = scores_of(ProfileNet(SMALL), held_out)
    assert scores["rms_median"] == pytest.approx(scores["plain_rms_median"], rel=1e-4)
    assert sum(len(part.truth) for part in held_out) == 32


def test_a_warehouse_that_is_no_folder_is_refused() -> None:
    asked = replace(request(Path("/nowhere")), warehouse="s3://bucket/warehouse")
    with pytest.raises(ConfigurationError, match="train in a warehouse on disk"):
        train_profile_net(asked)


@pytest.mark.parametrize(
    ("method", "weights", "word"),
    [
        ("isophote", Weights(model="mine"), "--model"),
        ("network", Weights(training_mode=True), "--training-mode"),
        ("published", Weights(model="mine", members=3), "--members"),
    ],
)
def test_a_method_refuses_what_it_does_not_take(method: str, weights: Weights, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        open_method(method, weights=weights)


def test_a_training_resumed_is_as_one_that_was_not(root: Path, trained: Trained, tmp_path: Path) -> None:
    pools = tmp_path / "pools" / "profiles"
    pools.mkdir(parents=True)
    for path in (root / "pools" / "profiles").iterdir():
        (pools / path.name).hardlink_to(path)
    whole = train_profile_net(request(tmp_path))
    assert whole.reference.weights_sha256 == trained.reference.weights_sha256
