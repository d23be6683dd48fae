"""Make the generated archive: whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odc.geo.geom import box

from tasks.earth.simulate.archive import simulate_archive
from tasks.earth.simulate.config import SimulateConfig
from tasks.errors import ConfigurationError

AREA = "area.geojson"
_PARTIAL = ".partial"


def make_archive(
    folder: Path,
    config: SimulateConfig,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write the archive beside its final place and move it there when it is whole.

    An archive of the same settings that stands already is left as it is.

    Parameters
    ----------
    folder : Path
        Where it goes.
    config : SimulateConfig
        What it holds.
    on_progress : callable, optional
        Called with overpasses done and overpasses in all.

    Returns
    -------
    list of str
        What was made and where it lies, for the user.

    Raises
    ------
    ConfigurationError
        Where the folder holds anything else.
    """
    if _is_same(folder, config):
        return [f"{folder}: stands already, with these settings"]
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder}: holds something else; name another folder or remove it")
    partial = folder.with_name(folder.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)

    summary = simulate_archive(partial, config, on_progress=on_progress)
    (partial / AREA).write_text(json.dumps(_area(config)))
    (partial / "settings.json").write_text(_settings(config))
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return [
        f"{summary.items} items of {summary.dates} overpasses, {summary.bytes / 1e6:.0f} MB, in {summary.seconds:.0f} s",
        f"  catalogue  {folder / 'catalog.json'}",
        f"  area       {folder / AREA}",
        f"  labels     {folder / 'truth' / 'classes.gpkg'} ({summary.label_polygons} woods)",
        f"  truth      {folder / 'truth'} (canopy {summary.canopy_share:.1%}, conifer {summary.conifer_share:.1%})",
    ]


def _is_same(folder: Path, config: SimulateConfig) -> bool:
    path = folder / "settings.json"
    return path.exists() and path.read_text() == _settings(config)


def _settings(config: SimulateConfig) -> str:
    # the number of threads changes no byte
    return json.dumps({name: value for name, value in asdict(config).items() if name != "workers"}, default=str)


def _area(config: SimulateConfig) -> dict[str, Any]:
    side = config.size_km * 1000.0
    square = box(config.west, config.south, config.west + side, config.south + side, f"EPSG:{config.epsg}")
    # a ring that follows the square's sides in degrees, so that the area is the square again when projected back
    return dict(square.segmented(side / 20).to_crs("EPSG:4326").json)
