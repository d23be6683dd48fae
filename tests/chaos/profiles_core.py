"""A process to be killed: bulk extraction without Prefect. ``python profiles_core.py request.json``.

It says ``ready`` before the work, and the product's place at its end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Read the request, do what is left."""
    from tasks.sky.extraction import close_processes, extract_batch
    from tasks.sky.extraction_plan import ExtractionRequest, prepare_extraction
    from tasks.sky.extraction_report import finish_extraction

    request = ExtractionRequest.from_json(json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    prepared = prepare_extraction(request)
    for job in prepared.jobs:
        extract_batch(job)
    extracted = finish_extraction(prepared)
    close_processes(request.workers)
    sys.stdout.write(json.dumps({"run": extracted.run.id, "product": extracted.products[0]}) + "\n")


if __name__ == "__main__":
    main()
