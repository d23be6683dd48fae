"""The flow that packs the series of an area into a token store."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import TokeniseConfig
from flows.runtime import Summary
from models.tokens import ExtraChannel
from storage.location import resolve
from tasks.earth.extra_channels import ExtraSource
from tasks.earth.forecast_evaluation import parse_holdout
from tasks.earth.grid import read_area
from tasks.earth.tokens import PackReport, PackRequest
from tasks.tokenise import pack_tokens


@flow(name="tokenise-earth")
def tokenise_earth(config: TokeniseConfig) -> Any:
    """Pack the pixel series of an area, or bring what is packed up to date."""
    report = pack_tokens(to_request(config))
    return Completed(message=f"{report.store.usable} series", data=summarise(config.name, report))


def to_request(config: TokeniseConfig) -> PackRequest:
    """Return what the task needs, from what the user wrote."""
    return PackRequest(
        warehouse=resolve(config.warehouse).url,
        name=config.name,
        area=read_area(config.aoi),
        steps=config.steps,
        pixels=config.pixels,
        seed=config.seed,
        before=config.before.isoformat() if config.before else None,
        bands=config.bands,
        extra=tuple(
            ExtraSource(
                extra.url, ExtraChannel(extra.name, extra.offset, extra.scale, extra.unit), extra.tolerance_days
            )
            for extra in config.extra
        ),
        holdout=parse_holdout(config.holdout_blocks) if config.holdout_blocks else None,
        crs=config.crs,
        resolution=config.resolution,
        allow_unmasked=config.allow_unmasked,
    )


def summarise(name: str, report: PackReport) -> Summary:
    """Return what the command line prints."""
    counts = {f"series {state}": count for state, count in report.samples.items() if count}
    return Summary(name, counts, details={"tokens": str(report.store.location), "usable series": report.store.usable})
