"""Labels, from what the user wrote to what the tasks need; and the report on them, which needs no flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.config import ClassSettings, LabelReportConfig, LabelSettings
from storage.classes import LandClass
from storage.location import resolve
from tasks.earth import label_report
from tasks.earth.grid import read_area
from tasks.earth.labels import LabelRules


def to_rules(settings: LabelSettings) -> LabelRules:
    """Return how a file of labels is read."""
    return LabelRules(**settings.model_dump(exclude={"path"}))


def to_classes(settings: Sequence[ClassSettings]) -> tuple[LandClass, ...]:
    """Return the classes of a map."""
    return tuple(LandClass(**one.model_dump()) for one in settings)


def report_labels(config: LabelReportConfig) -> dict[str, Any]:
    """Say what labels hold on the grid of an area; write report and picture."""
    return label_report.report_labels(
        label_report.LabelReportRequest(
            warehouse=resolve(config.warehouse).url,
            area=read_area(config.aoi),
            labels=config.labels.path,
            rules=to_rules(config.labels),
            classes=to_classes(config.classes),
            crs=config.crs,
            resolution=config.resolution,
            split=label_report.TileSplit(config.block, config.gap, config.shares, config.seed),
            out=config.out,
        )
    )
