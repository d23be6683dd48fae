"""Prefect tasks of the products of an area: freeze, fill one cell, publish."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.publish import Receipt
from storage.regions import Region
from tasks.artifacts import ProgressArtifact, publish_checks, publish_map_report, publish_product_artifacts
from tasks.earth.canopy_map import MapRequest, prepare_map
from tasks.earth.change_map import ChangeRequest, prepare_change
from tasks.earth.embedding_map import EmbedRequest, prepare_embedding
from tasks.earth.forecast_map import prepare_forecast
from tasks.earth.forecast_request import ForecastRequest
from tasks.earth.gates import Checked, GateRules
from tasks.earth.map_release import check_prepared, classes_of, publish_checked
from tasks.earth.map_report import Report, write_report
from tasks.earth.regional import Prepared, fill_regions, publish_prepared
from tasks.earth.reuse import take_over


@task(name="freeze map inputs", cache_policy=NO_CACHE, persist_result=False)
def freeze_map(request: MapRequest) -> Prepared:
    """Decide what a map reads and write the run's manifest; take over what an earlier map holds already."""
    prepared = prepare_map(request)
    take_over(prepared)
    return prepared


@task(name="freeze change inputs", cache_policy=NO_CACHE, persist_result=False)
def freeze_change(request: ChangeRequest) -> Prepared:
    """Decide which maps and looks change is found in, and write the run's manifest."""
    return prepare_change(request)


@task(name="freeze forecast inputs", cache_policy=NO_CACHE, persist_result=False)
def freeze_forecast(request: ForecastRequest) -> Prepared:
    """Decide what a forecast reads and write the run's manifest."""
    return prepare_forecast(request)


@task(name="freeze embedding inputs", cache_policy=NO_CACHE, persist_result=False)
def freeze_embedding(request: EmbedRequest) -> Prepared:
    """Decide what an embedding reads and write the run's manifest."""
    return prepare_embedding(request)


@task(name="fill cell", task_run_name="{kind} {name}", cache_policy=NO_CACHE, persist_result=False)
def fill_cell(prepared: Prepared, kind: str, name: str, regions: list[Region]) -> int:
    """Fill the regions of one cell of 1024 pixels."""
    with ProgressArtifact(kind, name) as progress:
        return fill_regions(prepared, name, regions, progress)


@task(name="check map", cache_policy=NO_CACHE, persist_result=False)
def check_staged_map(prepared: Prepared, rules: GateRules, sample: str | None) -> Checked:
    """Check what was filled, and show what was found."""
    checked = check_prepared(prepared, rules, sample=sample)
    publish_checks(checked)
    return checked


@task(name="publish map", cache_policy=NO_CACHE, persist_result=False)
def publish_map(prepared: Prepared, checked: Checked) -> Receipt:
    """Publish a map that passed its checks."""
    return publish_checked(prepared, checked)


@task(name="report map", cache_policy=NO_CACHE, persist_result=False)
def report_map(prepared: Prepared, receipt: Receipt, checked: Checked) -> Report:
    """Write the report of a map, and show it."""
    report = write_report(prepared.run, receipt, checked, classes_of(prepared))
    publish_map_report(receipt, report)
    return report


@task(name="publish product", cache_policy=NO_CACHE, persist_result=False)
def publish_product(prepared: Prepared) -> Receipt:
    """Publish the product and show it."""
    receipt = publish_prepared(prepared)
    publish_product_artifacts(receipt)
    return receipt
