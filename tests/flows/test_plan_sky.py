"""What a warehouse holds of the sky: stores and published profiles, in words and as plain data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sky_cases import random_cutout
from typer.testing import CliRunner

from flows.cli import app
from flows.plan import describe_warehouse
from storage.location import resolve
from storage.sky import append_cutouts
from tasks.sky.profile import unmeasured
from tasks.sky.profile_table import to_table
from tasks.sky.publish import publish_profiles

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in NestedFrame.drop")


def test_status_lists_the_stores_of_the_sky_and_the_profiles(tmp_path: Path) -> None:
    root = resolve(tmp_path)
    append_cutouts(
        root / "sky/legacy", [random_cutout(str(number), shape=(20, 30)) for number in range(3)], batch="b-0"
    )
    newest = append_cutouts(root / "sky/legacy", [random_cutout("7", shape=(10, 10), bands=("r",))], batch="b-1")
    rows = [
        *unmeasured("1", ("g", "r"), state="outside", reason="no-data", message="not there"),
        *unmeasured("2", ("g", "r"), state="rejected", reason="unreadable", message="cut"),
    ]
    pq.write_table(to_table([replace(row, ra=10.0, dec=20.0) for row in rows]), tmp_path / "batch.parquet")
    facts = {"created": "2025-03-04T05:06:07+00:00", "snapshots": {"sky/legacy": newest}}
    receipt = publish_profiles(
        root, [tmp_path / "batch.parquet"], collection="profiles", title="t", integer_ids=True, facts=facts
    )
    product = f"profiles/{receipt.key.item_id}"
    status = json.loads(CliRunner().invoke(app, ["status", "--warehouse", str(tmp_path), "--json"]).output)
    (store,) = status["sky"]
    assert (store["survey"], store["objects"], store["last_batch"]) == ("legacy", 4, "b-1")
    assert (store["path"], store["snapshot"]) == ("sky/legacy", newest)
    assert store["bytes"] == 3 * 20 * 30 * (3 * 13 + 4) + 10 * 10 * (13 + 4)
    assert status["products"] == [product]
    states = {"rejected": 2, "outside": 2}
    assert status["profiles"] == [{"product": product, "objects": 2, "rows": 4, "states": states}]
    lines = "\n".join(describe_warehouse(str(tmp_path))["lines"])
    assert "sky      sky/legacy  4 objects, 0.1 MB of planes, uncompressed; last batch b-1, 20" in lines
    assert f"product  {product}  2 objects, rows: " in lines


def test_status_names_a_store_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "sky" / "sdss" / "chunks").mkdir(parents=True)
    (store,) = describe_warehouse(str(tmp_path))["sky"]
    assert store["objects"] == 0
    assert "sdss" in store["error"]
