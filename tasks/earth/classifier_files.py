"""Classifiers at rest: a forest, its classes and its scores in the folder of a model (`model_folders`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.forest import ForestClassifier
from storage.classes import LandClass
from storage.errors import SchemaMismatch
from storage.location import Location
from tasks.earth.mapping import Filling, classify_block
from tasks.earth.model_folders import ModelParts, ModelReference, read_parts, save_parts
from tasks.errors import ConfigurationError


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier, ready to use.

    Parameters
    ----------
    reference : ModelReference
        Which one it is.
    classifier : ForestClassifier
        Predicts.
    classes : tuple of LandClass
        In the order of its probabilities.
    metrics : dict
        Scores against held-out labels.
    """

    reference: ModelReference
    classifier: ForestClassifier
    classes: tuple[LandClass, ...]
    metrics: dict[str, Any]

    def require_bands(self, bands: Sequence[str]) -> None:
        """Check that the cubes hold the bands that it was trained on.

        Raises
        ------
        ConfigurationError
            Where they do not.
        """
        if tuple(self.classifier.bands) != tuple(bands):
            raise ConfigurationError(
                f"the model was trained on {', '.join(self.classifier.bands)}, the cubes hold {', '.join(bands)}; "
                "train one on these cubes"
            )

    def filling(self, bands: Sequence[str]) -> Filling:
        """Return how it fills a region of a map from cubes of these bands."""
        self.require_bands(bands)
        return partial(classify_block, classifier=self.classifier, classes=self.classes)


def save_classifier(
    warehouse: Location,
    name: str,
    classifier: ForestClassifier,
    *,
    classes: Sequence[LandClass],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
) -> ModelReference:
    """Save a fitted classifier; the same one again is no work.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Letters, digits, dots, dashes and underscores.
    classifier : ForestClassifier
        Fitted.
    classes : sequence of LandClass
        In the order of its probabilities.
    metrics, training : mapping
        JSON types: scores against held-out labels; data, settings and software of the training.

    Raises
    ------
    ConfigurationError
        Where the name cannot be a folder's.
    """
    config = {**classifier.to_config(), "legend": [asdict(known) for known in classes]}
    card = classifier_card(config, metrics, training)
    parts = ModelParts(save(classifier.to_tensors()), config, dict(metrics), dict(training), card)
    return save_parts(warehouse, name, parts)


def load_classifier(warehouse: Location, name: str, version: str | None = None) -> LoadedClassifier:
    """Return a saved model.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Name, or ``name/version``.
    version : str, optional
        By default the one saved last.

    Raises
    ------
    NotFound
        Where there is no such model; the message lists those that are there.
    SchemaMismatch
        Where its files are damaged, or written by another version of the code.
    """
    reference, parts = read_parts(warehouse, name, version)
    try:
        classifier = ForestClassifier.from_parts(load(parts.weights), parts.config)
        classes = tuple(LandClass(**entry) for entry in parts.config["legend"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SchemaMismatch(f"{reference.url}: {error}") from error
    return LoadedClassifier(reference, classifier, classes, parts.metrics)


def classifier_card(config: Mapping[str, Any], metrics: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    """Return the card: what the classifier is, what it was made from, how well it does and what it cannot do."""
    names = [entry["name"] for entry in config["legend"]]
    scores = [*metrics.get("classes", {}).items(), *([("canopy", metrics["canopy"])] if "canopy" in metrics else [])]
    rows = [
        f"| {name} | {_number(s['pr_auc'])} | {_number(s['roc_auc'])} | {_number(s['prevalence'])} |"
        for name, s in scores
    ]
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in training.items()]
    return "\n".join(
        [
            f"A forest of {config['hyper_parameters']['trees']} trees on temporal statistics of Sentinel-2 series "
            f"({', '.join(config['bands'])}); classes {', '.join(names)}.",
            "",
            "## Scores against held-out labels",
            "",
            metrics.get("evaluation", ""),
            "",
            "| class | PR-AUC | ROC-AUC | prevalence |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "## Training",
            "",
            *facts,
            "",
            "## Limits",
            "",
            "Each pixel is judged alone, from its own valid looks. Scores describe the labels, not the whole map, and hold "
            "for places and years like those of the training; areas need a probability sample (`canopus sample`).",
            "",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
