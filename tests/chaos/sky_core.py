"""A process to be killed: ``python sky_core.py STORE`` appends batch after batch; it says ``ready`` before the first."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sky_cases import random_cutout

from storage.cutouts import Cutout
from storage.location import resolve

BATCHES, TOGETHER = 6, 5


def batches() -> Iterator[tuple[str, list[Cutout]]]:
    """Yield every batch with its name; the second half holds some objects of the first again, changed."""
    for number in range(BATCHES):
        first = TOGETHER * number - (2 if number > BATCHES // 2 else 0)
        cutouts = [
            random_cutout(str(index), seed=100 * number + index, shape=(30 + 40 * (index % 4), 90))
            for index in range(first, first + TOGETHER)
        ]
        yield f"batch-{number}", cutouts


def main() -> None:
    """Append all batches."""
    from storage.sky import append_cutouts

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for name, cutouts in batches():
        append_cutouts(resolve(sys.argv[1]), cutouts, batch=name)


if __name__ == "__main__":
    main()
