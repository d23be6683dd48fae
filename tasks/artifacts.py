"""What Prefect's dashboard shows of a run: tables, pictures, links, progress."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from storage.publish import Receipt
from tasks import progress
from tasks.earth.canopy_tables import describe_canopy, score_rows
from tasks.earth.gates import Checked
from tasks.earth.ingest import SceneRow
from tasks.earth.map_report import Report, describe, verdict

if TYPE_CHECKING:
    from tasks.earth.model_folders import ModelReference
    from tasks.earth.training_run import Trained
    from tasks.sky.extraction_report import Extracted

_LISTED = 500
_GALLERIES = 5
_MEDIANS = {
    "r25_arcsec": "R25, arcsec",
    "half_light_radius_arcsec": "half-light radius, arcsec",
    "total_magnitude": "total magnitude",
    "psf_fwhm_arcsec": "PSF, arcsec",
    "seconds": "seconds",
}
_PAUSE_S = 2.0


class ProgressArtifact:
    """A bar in the dashboard, and word to every listener of this process, for one piece of long work."""

    def __init__(self, stage: str, name: str) -> None:
        self.stage, self.name = stage, name
        self._artifact: UUID | None = None
        self._last = 0.0

    def __enter__(self) -> ProgressArtifact:
        """Show an empty bar."""
        description = f"{self.stage} {self.name}"
        self._artifact = create_progress_artifact(0.0, key=artifact_key(description), description=description)  # type: ignore[assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Fill the bar, unless the work failed."""
        if kind is None and self._artifact is not None:
            update_progress_artifact(self._artifact, 100.0)

    def __call__(self, name: str, done: int, total: int, words: str = "") -> None:
        """Move the bar; the dashboard is told every other second at most."""
        progress.report(self.stage, name, done, total, words)
        now = time.monotonic()
        if self._artifact is not None and now - self._last > _PAUSE_S:
            self._last = now
            described = f"{self.stage} {self.name}: {words}" if words else None
            update_progress_artifact(self._artifact, 100.0 * done / max(total, 1), description=described)


def artifact_key(text: str) -> str:
    """Return a key as Prefect wants it: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def publish_scene_table(run: str, rows: Sequence[SceneRow]) -> None:
    """Show what became of each scene, the failures first."""
    order = {"failed": 0, "ingested": 1, "superseded": 2, "skipped": 3}
    ranked = sorted(rows, key=lambda row: (order.get(row.state, 9), row.day, row.scene))
    table = [
        {
            "state": row.state,
            "day": row.day,
            "scene": row.scene,
            "tile": row.tile.removeprefix("earth/"),
            "reason": row.reason,
            "message": row.message,
            "seconds": round(row.seconds, 2),
            "MB": round(row.bytes / 1e6, 1),
        }
        for row in ranked[:_LISTED]
    ]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(Counter(row.state for row in rows).items()))
    more = f"; the first {_LISTED} of {len(rows)}" if len(rows) > _LISTED else ""
    create_table_artifact(table, key="scenes", description=f"Scenes of {run}: {counts or 'none'}{more}")


def publish_markdown(key: str, text: str, description: str) -> None:
    """Show text, links and pictures."""
    create_markdown_artifact(text, key=artifact_key(key), description=description)


def publish_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Show a table."""
    create_table_artifact(rows, key=artifact_key(key), description=description)


def publish_accuracy(model: str, metrics: dict[str, Any]) -> None:
    """Show the scores of a model on held-out blocks."""
    scored = {**metrics["classes"], **({"canopy": metrics["canopy"]} if "canopy" in metrics else {})}
    rows = [
        {"class": name, **{key: found[key] and round(found[key], 4) for key in ("roc_auc", "pr_auc", "prevalence")}}
        for name, found in scored.items()
    ]
    publish_table(f"accuracy-{model}", rows, f"Accuracy of {model}: {metrics['evaluation']}")


def publish_training(trained: Trained) -> None:
    """Show how a training went: loss curve, scores beside the floors, what it cost."""
    reference, training = trained.reference, trained.training
    rows = [
        f"| {kind} | {method} | {found['mae']:.4f} | {found['median']:.4f} | {found['n']:,} |"
        for kind, scores in trained.metrics["held_out"].items()
        for method, found in next(iter(scores["indices"].values())).items()
        if found["mae"] is not None
    ]
    facts = [*training["facts"], training["selection"], *trained.notes]
    text = (
        f"# {reference.name}, version {reference.version}\n\n![loss]({_served(trained.curve)})\n\n"
        + "".join(f"- {fact}\n" for fact in dict.fromkeys(facts))
        + f"- {training['steps']:,} updates in {training['minutes']:.1f} minutes, "
        f"{training['loop']['tokens_per_second']:,.0f} looks/s, {100 * training['loop']['wait_share']:.1f} % of it waiting "
        f"for data; {training['cost']['cpu_hours']:.3g} CPU-hours, {training['cost']['gpu_hours']:.3g} GPU-hours\n\n"
        "| held out | method | mean error, NDVI | median | looks |\n| --- | --- | ---: | ---: | ---: |\n"
        + "\n".join(rows)
        + f"\n\nModel: `{reference.url}`, run: `{trained.run}`\n"
    )
    publish_markdown(f"training-{reference.name}", text, f"Training of {reference.name}")


def publish_curve(reference: ModelReference, training: dict[str, Any], curve: str, notes: Sequence[str]) -> None:
    """Show how a training of the sky's models went: loss curve, what it learned from, what it cost."""
    facts = [*training["facts"], *notes]
    text = (
        f"# {reference.name}, version {reference.version}\n\n![loss]({_served(curve)})\n\n"
        + "".join(f"- {fact}\n" for fact in dict.fromkeys(facts))
        + f"- {training['steps']:,} updates in {training['minutes']:.1f} minutes on {training['device']}; "
        f"{training['cost']['cpu_hours']:.3g} CPU-hours, {training['cost']['gpu_hours']:.3g} GPU-hours\n\n"
        f"Model: `{reference.url}`, run: `{training['run']}`\n"
    )
    publish_markdown(f"training-{reference.name}", text, f"Training of {reference.name}")


def publish_forecast_scores(report: dict[str, Any]) -> None:
    """Show the errors of forecasts beside those of the floors."""
    rows = [
        {"index": index, "method": method, **{key: found[key] for key in ("mae", "median", "n")}}
        | {
            f"{key}, free of haze": report["screened"].get(index, {}).get(method, {}).get(key)
            for key in ("mae", "median")
        }
        for index, methods in report["indices"].items()
        for method, found in methods.items()
    ]
    publish_table("forecast-scores", rows, f"Forecasts of {report['model'] or 'the floors'}: {report['run']}")


def publish_canopy_scores(report: dict[str, Any]) -> None:
    """Show the scores of a canopy model beside its floors, and the pictures."""
    publish_table("canopy-scores", score_rows(report), f"Canopy by {report['model']}: {report['run']}")
    pictures = "\n\n".join(f"![{url.rsplit('/', 1)[-1]}]({_served(url)})" for url in report["pictures"])
    words = f"# {report['model']}\n\n{pictures}\n\n```\n{describe_canopy(report)}\n```\n"
    publish_markdown("canopy-evaluation", words, f"Evaluation of {report['model']}")


def publish_extraction(extracted: Extracted) -> None:
    """Show how a bulk extraction of profiles ended: objects that were not measured, counts, medians, galleries, pages."""
    lost = [row for row in extracted.rows if row.state != "measured"]
    order = {"failed": 0, "rejected": 1, "outside": 2}
    ranked = sorted(lost, key=lambda row: order[row.state])
    more = f"; the first {_LISTED} of {len(lost)}" if len(lost) > _LISTED else ""
    counts = ", ".join(f"{count} {state}" for state, count in extracted.counts.items() if count)
    columns = ("state", "object_id", "reason", "message", "ra", "dec", "batch", "seconds")
    table = [{name: _cell(getattr(row, name)) for name in columns} for row in ranked[:_LISTED]]
    publish_table("objects", table, f"Objects of {extracted.run.id} that were not measured: {counts}{more}")
    pages = extracted.details.get("pages")
    medians = "".join(
        f"| {band} | " + " | ".join(f"{found[name]:.4g}" if name in found else "" for name in _MEDIANS) + " |\n"
        for band, found in extracted.medians.items()
    )
    text = (
        f"# {extracted.run.id}\n\n{counts}\n\n"
        + (f"[Pages with a picture of each object]({_served(pages)})\n\n" if pages else "")
        + "".join(f"- {reason}: {count:,}\n" for reason, count in extracted.reasons.items())
        + "".join(f"- {note}\n" for note in extracted.notes)
        + f"\n| median of | {' | '.join(_MEDIANS.values())} |\n| --- |{' ---: |' * len(_MEDIANS)}\n{medians}\n"
        + "".join(f"- product: `{product}`\n" for product in extracted.products)
        + "\n"
        + "\n\n".join(f"![gallery]({_served(url)})" for url in extracted.pictures[:_GALLERIES])
        + "\n"
    )
    publish_markdown("profiles", text, f"Profiles: {counts}")


def publish_images(key: str, urls: Sequence[str], description: str) -> None:
    """Show pictures, the first ones of many."""
    shown = "\n\n".join(f"![{url.rsplit('/', 1)[-1]}]({_served(url)})" for url in urls[:_GALLERIES])
    publish_markdown(key, f"# {description}\n\n{shown}\n", description)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value


def publish_product_artifacts(receipt: Receipt) -> None:
    """Show a product: pictures, links to its parts."""
    title = receipt.item["properties"].get("title", receipt.key.item_id)
    links = "\n".join(f"- [{name}]({_served(url)})" for name, url in sorted(receipt.assets.items()))
    shown = "\n\n".join(f"![{name}]({url})" for name, url in _pictures(receipt).items())
    text = f"# {title}\n\n{shown}\n\nItem: `{receipt.item_url}` ({receipt.state})\n\n{links}\n"
    publish_markdown(f"product-{receipt.key.collection}", text, f"{title}: {receipt.key.item_id}")
    _publish_pictures(receipt)


def publish_checks(checked: Checked) -> None:
    """Show the checks of a map, those that failed first."""
    rows = [
        {
            "check": check.name,
            "passed": verdict(asdict(check)),
            "value": check.value,
            "limit": check.limit,
            "what was found": check.sentence,
        }
        for check in sorted(checked.checks, key=lambda check: check.passed)
    ]
    held = ", ".join(check.name for check in checked.failed)
    verdict_of_all = f"held back by {held}" if held else "fit to publish"
    key = f"checks-{checked.key.collection}"
    publish_table(key, rows, f"Checks of {checked.key.item_id}: {verdict_of_all}")


def publish_map_report(receipt: Receipt, report: Report) -> None:
    """Show a map with its report: areas, change, picture, links, checks."""
    data = report.data | {"assets": {name: _served(url) for name, url in report.data["assets"].items()}}
    title = f"{data['title']}: {receipt.key.item_id}"
    publish_markdown(f"product-{receipt.key.collection}", describe(data, _served(report.change)), title)
    _publish_pictures(receipt)


def _pictures(receipt: Receipt) -> dict[str, str]:
    return {name: _served(url) for name, url in receipt.assets.items() if url.endswith(".png")}


def _publish_pictures(receipt: Receipt) -> None:
    for name, url in _pictures(receipt).items():
        if url.startswith("http"):
            key = artifact_key(f"product-{receipt.key.collection}-{name}")
            create_image_artifact(url, key=key, description=receipt.key.item_id)


def _served(url: str) -> str:
    """Return where the dashboard's reader finds a file of a product or a run: on the web server, where one runs."""
    server, _, root = os.environ.get("CANOPUS_PRODUCTS_URL", "").partition("|")
    if not (server and root):
        return url
    runs = f"{root.removesuffix('products')}runs"
    return url.replace(root, server, 1).replace(runs, f"{server}/runs", 1)
