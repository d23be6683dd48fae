"""`canopus train profiles`: what settings mean, and the command in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.config import make_config
from flows.config_sky import TrainProfilesConfig
from flows.train_profiles import to_request
from models.profile_network import ProfileNetConfig

TINY = """
channels: 8
width: 16
layers: 1
batch: 4
shards: 1
shard_size: 32
calibrated_on: 64
checkpoint_every: 1
log_every: 1
"""


def test_by_default_the_shipped_network_is_trained_anew() -> None:
    request = to_request(make_config(TrainProfilesConfig, {}))
    assert request.model == ProfileNetConfig()
    assert (request.train.steps, request.batch, request.shards, request.shard_size) == (2400, 64, 90, 256)
    assert request.train.minutes is None
    assert request.real == ()


def test_minutes_are_of_the_piece_and_not_of_the_schedule() -> None:
    request = to_request(make_config(TrainProfilesConfig, {"minutes": 10, "real": "a,b"}))
    assert request.minutes == 10
    assert request.train.minutes is None
    assert request.real == ("a", "b")


@pytest.mark.slow
def test_the_command_goes_on_where_it_stopped_and_ends_with_a_model(tmp_path: Path) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(TINY)
    command = ["train", "profiles", "--warehouse", str(tmp_path / "warehouse"), "--config", str(settings)]
    command += ["--steps", "2", "--name", "mine"]
    first = CliRunner().invoke(app, [*command, "--minutes", "0.0001", "--json"])
    assert first.exit_code == 0, first.output
    assert any("goes on from here" in note for note in json.loads(first.output.splitlines()[-1])["notes"])
    second = CliRunner().invoke(app, [*command, "--json"])
    assert second.exit_code == 0, second.output
    said = json.loads(second.output.splitlines()[-1])
    assert said["counts"] == {"updates": 2}
    assert any("went on from update 1" in note for note in said["notes"])
    assert "RMS" in said["details"]["held out"]
    assert len(list((tmp_path / "warehouse" / "models" / "mine").glob("*/config.json"))) == 2
