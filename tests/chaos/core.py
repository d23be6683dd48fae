"""A process to be killed: the core of ingest or of a map, without Prefect.

``python core.py ingest request.json`` or ``python core.py map request.json``; it says ``ready`` once all is imported, so
that a kill falls into the work.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Read the request, do the work."""
    from tasks.earth.canopy_map import MapRequest, prepare_map
    from tasks.earth.ingest import ingest_tile
    from tasks.earth.regional import fill_regions, publish_prepared
    from tasks.earth.request import IngestRequest, prepare_ingest

    kind, path = sys.argv[1:]
    content = json.loads(Path(path).read_text())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if kind == "ingest":
        for job in prepare_ingest(IngestRequest.from_json(content)).jobs:
            ingest_tile(job)
        return
    prepared = prepare_map(MapRequest(**content))
    if prepared.present is None:
        for name, regions in prepared.groups():
            fill_regions(prepared, name, regions)
    publish_prepared(prepared)


if __name__ == "__main__":
    main()
