"""prefect.yaml and flows/configs: everything that can be started resolves, and its settings fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flows.config import (
    BackfillConfig,
    ChangeConfig,
    EmbedConfig,
    EvaluateCanopyConfig,
    EvaluateForecastConfig,
    ForecastConfig,
    IngestConfig,
    MapConfig,
    PipelineConfig,
    Settings,
    TokeniseConfig,
    TrainCanopyConfig,
    TrainEarthPTConfig,
    TrainFloorConfig,
    UpdateConfig,
    load_config,
    make_config,
)
from flows.config_sky import ProfilesConfig, TrainDiffusionConfig
from flows.config_synthesis import GenerateConfig, InpaintConfig, InterpolateConfig, TransferConfig
from flows.up import deployments
from tasks.errors import ConfigurationError

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "flows" / "configs"
KINDS: dict[str, type[Settings]] = {
    "default": PipelineConfig,
    "earth_search": PipelineConfig,
    "ingest": IngestConfig,
    "train_canopy": TrainCanopyConfig,
    "train_floor": TrainFloorConfig,
    "train_earthpt": TrainEarthPTConfig,
    "pretrain_earthpt": TrainEarthPTConfig,
    "distil_earthpt": TrainEarthPTConfig,
    "map": MapConfig,
    "forecast": ForecastConfig,
    "embed": EmbedConfig,
    "tokenise": TokeniseConfig,
    "update": UpdateConfig,
    "backfill": BackfillConfig,
    "change": ChangeConfig,
    "evaluate_canopy": EvaluateCanopyConfig,
    "evaluate_forecast": EvaluateForecastConfig,
    "profiles": ProfilesConfig,
    "generate": GenerateConfig,
    "inpaint": InpaintConfig,
    "transfer": TransferConfig,
    "interpolate": InterpolateConfig,
    "train_diffusion": TrainDiffusionConfig,
    "train_diffusion_gpu": TrainDiffusionConfig,
    "pretrain_earthpt_gpu": TrainEarthPTConfig,
}
DEPLOYED = {
    "archive-to-map": "default",
    "ingest-earth": "ingest",
    "train-canopy": "train_canopy",
    "train-floor": "train_floor",
    "train-earthpt": "train_earthpt",
    "train-earthpt-prior": "pretrain_earthpt",
    "train-earthpt-student": "distil_earthpt",
    "map-canopy": "map",
    "forecast-area": "forecast",
    "embed-area": "embed",
    "tokenise-earth": "tokenise",
    "update-canopy-map": "update",
    "backfill-canopy-map": "backfill",
    "change-canopy": "change",
    "evaluate-canopy": "evaluate_canopy",
    "evaluate-forecast": "evaluate_forecast",
    "extract-profiles": "profiles",
    "generate-galaxies": "generate",
    "inpaint-images": "inpaint",
    "transfer-images": "transfer",
    "interpolate-images": "interpolate",
    "train-diffusion": "train_diffusion",
}
ENTRIES = {entry["name"]: entry for entry in deployments()["deployments"]}


@pytest.fixture(params=sorted(ENTRIES))
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ENTRIES[request.param]


def test_every_flow_has_one_deployment() -> None:
    assert set(ENTRIES) == set(DEPLOYED)


def test_the_entrypoint_is_a_flow_of_one_config(entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(entry["entrypoint"])
    schema = parameter_schema(flow).model_dump()
    assert schema["required"] == ["config"]
    assert flow.name == entry["name"] or flow.name.startswith(entry["name"].split("-")[0])


def test_the_parameters_fit_the_flow(entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(entry["entrypoint"])
    config = flow.validate_parameters(entry["parameters"])["config"]
    assert type(config).__name__ == KINDS[DEPLOYED[entry["name"]]].__name__


def test_the_parameters_are_those_of_the_file_in_configs(entry: dict[str, Any]) -> None:
    name = DEPLOYED[entry["name"]]
    written = load_config(CONFIGS / f"{name}.yaml", KINDS[name])
    deployed = make_config(KINDS[name], entry["parameters"]["config"], where=entry["name"])
    assert deployed == written


def test_a_step_by_itself_is_the_step_of_the_chain() -> None:
    """Otherwise the same data would give another model, and another map, according to what was started."""
    chain = load_config(CONFIGS / "default.yaml", PipelineConfig)
    assert chain.train is None
    assert load_config(CONFIGS / "map.yaml", MapConfig) == chain.map
    update = load_config(CONFIGS / "update.yaml", UpdateConfig).map
    assert update.model_copy(update={"gates": chain.map.gates}) == chain.map
    assert load_config(CONFIGS / "backfill.yaml", BackfillConfig).map == chain.map
    assert load_config(CONFIGS / "ingest.yaml", IngestConfig) == chain.ingest


def test_a_deployment_says_what_it_does_and_where_it_runs(entry: dict[str, Any]) -> None:
    assert len(entry["description"]) > 60
    assert entry["tags"]
    assert entry["work_pool"] == {"name": "cpu"}


def test_only_the_update_runs_on_its_own_and_never_twice_at_once() -> None:
    schedules = [(name, schedule) for name, entry in ENTRIES.items() for schedule in entry.get("schedules", ())]
    assert [name for name, schedule in schedules if schedule["active"]] == ["update-canopy-map"]
    for _, schedule in schedules:
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    assert ENTRIES["update-canopy-map"]["concurrency_limit"]["limit"] == 1


def test_the_update_searches_up_to_the_day_of_the_run() -> None:
    assert "end" not in ENTRIES["update-canopy-map"]["parameters"]["config"]["ingest"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads_and_says_what_it_is_for(path: Path) -> None:
    load_config(path, KINDS[path.stem])
    assert path.read_text().startswith("# ")


def test_a_wrong_field_in_a_config_is_named(tmp_path: Path) -> None:
    content = yaml.safe_load((CONFIGS / "ingest.yaml").read_text()) | {"resolutoin": 20}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError, match=r"wrong\.yaml: resolutoin"):
        load_config(tmp_path / "wrong.yaml", IngestConfig)


def test_another_warehouse_reaches_every_step(tmp_path: Path) -> None:
    for entry in deployments(warehouse=str(tmp_path))["deployments"]:
        assert "./warehouse" not in yaml.safe_dump(entry["parameters"]), entry["name"]
        assert str(tmp_path) in yaml.safe_dump(entry["parameters"]), entry["name"]


def test_without_a_checkout_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="runs from a checkout"):
        deployments(tmp_path / "prefect.yaml")
