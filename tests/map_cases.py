"""A small model, and maps made from cubes without Prefect, as the flow makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ingest_cases import BANDS

from models.forest import ForestClassifier, ForestConfig, feature_names
from storage.classes import CANOPY_CLASSES
from storage.location import resolve
from tasks.earth.canopy_map import MapRequest, prepare_map
from tasks.earth.classifier_files import save_classifier
from tasks.earth.gates import GateRules
from tasks.earth.regional import Prepared, fill_regions
from tasks.earth.reuse import take_over

LOOSE = GateRules(max_drift=None, max_seam=None)
"""Classes of random looks drift as they will."""


def with_model(warehouse: Path) -> Path:
    """Put a forest that knows nothing, called ``floor``, into a warehouse."""
    rng = np.random.default_rng(5)
    features = rng.normal(0.2, 0.1, (300, len(feature_names(BANDS)))).astype(np.float32)
    forest = ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=5)).fit(features, np.arange(300) % 3)
    save_classifier(resolve(warehouse), "floor", forest, classes=CANOPY_CLASSES, metrics={}, training={})
    return warehouse


def fill_map(
    warehouse: Path, area: dict[str, Any], until: str | None = None, *, anew: bool = False
) -> tuple[Prepared, int]:
    """Stage a map and return it with the number of regions that were made; `anew` takes nothing over."""
    prepared = prepare_map(MapRequest(str(warehouse), area, "floor", until=until))
    if prepared.present is not None:
        return prepared, 0
    if not anew:
        take_over(prepared)
    return prepared, sum(fill_regions(prepared, name, regions) for name, regions in prepared.groups())
