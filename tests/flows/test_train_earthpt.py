"""`canopus train earthpt`: what settings mean, what does not go together, and the same command under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from flows.config import TrainEarthPTConfig, load_config, make_config
from flows.train import ENDLESS, to_earthpt_request

AOI = "-1.31,51.46,-1.30,51.47"
TINY = {
    "name": "tiny",
    "model": {"layers": 1, "heads": 2, "width": 16, "pointers": 2, "queries": 8},
    "series": 8,
    "looks": 40,
    "scored": 4,
    "steps": 6,
    "warmup_steps": 2,
    "checkpoint_every": 3,
    "log_every": 2,
    "device": "cpu",
}


def request_of(**given: Any) -> Any:
    return to_earthpt_request(make_config(TrainEarthPTConfig, given))


def test_without_an_area_everything_is_generated_and_drawn_anew() -> None:
    request = request_of()
    assert request.start is None
    assert request.data.area is None
    assert request.data.prior_share == 1.0
    assert (request.train.steps, request.train.learning_rate, request.train.minutes) == (20_000, 1e-3, None)


def test_with_an_area_the_shipped_model_is_tuned_gently() -> None:
    request = request_of(aoi=AOI, until="2018-12-31", holdout_blocks="5:0:20")
    assert request.start == "earthpt-small"
    assert (request.train.steps, request.train.learning_rate) == (600, 2e-4)
    assert request.data.prior_share == 0.5
    assert request.data.area.until == "2018-12-31"
    assert (request.data.area.holdout.folds, request.data.area.holdout.fold) == (5, 0)


def test_minutes_alone_end_a_training() -> None:
    request = request_of(minutes=20)
    assert (request.train.steps, request.train.minutes) == (ENDLESS, 20)
    assert request_of(minutes=20, steps=50).train.steps == 50


@pytest.mark.parametrize(
    "given", [{"start_from": "none"}, {"model": TINY["model"]}, {"teacher": "earthpt-small", "model": TINY["model"]}]
)
def test_an_area_with_a_model_of_its_own_is_drawn_anew(given: dict[str, Any]) -> None:
    assert request_of(aoi=AOI, **given).start is None


def test_options_lie_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(TINY))
    config = load_config(tmp_path / "run.yaml", TrainEarthPTConfig, steps=9)
    assert (config.steps, config.series) == (9, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--until", "2018-12-31"], "until says which real series are used, and there is no aoi"),
        (["--prior-share", "0.5"], "prior_share below 1 wants real series"),
        (["--aoi", AOI, "--start-from", "nobody"], "no model 'nobody'"),
        (["--aoi", AOI, "--start-from", "none"], "holds any of the area"),
        (["--aoi", "1,2,3"], "--aoi 1,2,3"),
        (["--aoi", AOI, "--holdout-blocks", "5"], "--holdout-blocks 5"),
        (["--parallel", "ddp"], "torchrun --nproc-per-node 2"),
        (["--device", "tpu"], "device"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml: no such file"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    # without Prefect, whose start takes as long as all of these
    monkeypatch.setattr("flows.train.follows", lambda: True)
    monkeypatch.setattr("flows.runtime.configure_prefect", lambda warehouse: None)
    monkeypatch.setattr(sys, "argv", ["canopus", "train", "earthpt", "--warehouse", str(tmp_path / "w"), *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr().err.strip()
    assert stopped.value.code in (1, 2)
    assert message in shown
    assert len(shown.splitlines()) == 1


def test_a_warehouse_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(sys, "argv", ["canopus", "train", "earthpt", "--warehouse", str(tmp_path / "file" / "w")])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().err.strip()
    assert "cannot be written" in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_one_model_by_the_same_command(tmp_path: Path, parallel: str) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "flows.cli",
    ]
    options = ["train", "earthpt", "--config", str(tmp_path / "tiny.yaml"), "--parallel", parallel, "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [*command, *options, "--warehouse", str(tmp_path / "w")],
        capture_output=True,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        cwd=Path(__file__).parent.parent.parent,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (summary,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    folder = Path(summary["details"]["model"])
    training = json.loads((folder / "training.json").read_text())
    assert training["processes"] == 2
    assert training["steps"] == 6
    assert len([path for path in (tmp_path / "w" / "runs").iterdir() if path.is_dir()]) == 1
