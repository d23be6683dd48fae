"""Some pixels, followed through an evaluation to be drawn: looks, forecast day by day, floors, held-out looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from models.floors import FLOORS
from tasks.earth.forecast_protocol import MODEL, Judged, Past, Predict, ScoringRule, window_quantiles
from tasks.earth.forecasting import HIGH, LOW, MEDIAN, quantile_index

KEPT, PER_PART = 48, 24
LEAST_TARGETS = 4
STEP_DAYS = 3
RANKS = (0.1, 0.4, 0.7, 0.95)
"""Where the drawn pixels stand among those kept, by their error."""


@dataclass(frozen=True)
class Example:
    """One pixel from one origin.

    Parameters
    ----------
    index : str
        Which index.
    origin : datetime64[D]
        Of the forecast.
    place : tuple of float
        x and y of its centre, metres.
    error : float
        Mean absolute error of the model, or of the window's median where there is none.
    dates, looks : ndarray, shape (time,)
        Valid looks before the origin.
    held_dates, held, screened : ndarray, shape (target,)
        Looks that were held out, and which of them are free of haze.
    days : ndarray, shape (day,), datetime64[D]
        Of the forecast.
    band : ndarray, shape (3, day)
        0.1, 0.5 and 0.9 quantiles.
    floors : mapping of str to ndarray, shape (day,)
        By name.
    rank, among : int
        Place by error among the pixels kept, from 1 on, and how many these are.
    """

    index: str
    origin: np.datetime64
    place: tuple[float, float]
    error: float
    dates: np.ndarray
    looks: np.ndarray
    held_dates: np.ndarray
    held: np.ndarray
    screened: np.ndarray
    days: np.ndarray
    band: np.ndarray
    floors: Mapping[str, np.ndarray]
    rank: int = 1
    among: int = 1


@dataclass
class ExampleKeeper:
    """Keeps a few pixels of all that are judged, whatever the order in which regions come."""

    kept: list[tuple[float, Example]] = field(default_factory=list)

    def watching(
        self, rule: ScoringRule, predict: Predict | None, places: np.ndarray, *, levels: tuple[float, ...]
    ) -> Callable[[Judged], None]:
        """Return what keeps some pixels of one part, from the middle origin: (pixel, 2) places in metres."""
        middle = rule.origins[len(rule.origins) // 2]

        def watch(judged: Judged) -> None:
            if judged.origin == middle and judged.index == next(iter(judged.past.values)):
                self._keep(judged, predict, places, (rule, levels))

        return watch

    def merge(self, other: ExampleKeeper) -> None:
        """Take over what another kept; the same pixels stay whatever the order."""
        self.kept = sorted([*self.kept, *other.kept], key=lambda entry: entry[0])[:KEPT]

    def chosen(self) -> list[Example]:
        """Return pixels from easy to hard."""
        ranked = sorted((example for _, example in self.kept), key=lambda example: example.error)
        if not ranked:
            return []
        places = sorted({round(rank * (len(ranked) - 1)) for rank in RANKS})
        return [replace(ranked[place], rank=place + 1, among=len(ranked)) for place in places]

    def _keep(
        self,
        judged: Judged,
        predict: Predict | None,
        places: np.ndarray,
        how: tuple[ScoringRule, tuple[float, ...]],
    ) -> None:
        usable = np.flatnonzero(judged.counted.sum(axis=0) >= LEAST_TARGETS)
        # by place, so that the choice does not depend on how the area is cut
        luck = np.modf(np.abs(np.sin(places[judged.pixels[usable]] @ np.array([12.9898, 78.233]))) * 43758.5453)[0]
        some = np.argsort(luck, kind="stable")[:PER_PART]
        if some.size:
            found = _examples(judged, predict, usable[some], places[judged.pixels[usable[some]]], how=how)
            self.kept = sorted([*self.kept, *zip(luck[some], found, strict=True)], key=lambda entry: entry[0])[:KEPT]


def _examples(
    judged: Judged,
    predict: Predict | None,
    chosen: np.ndarray,
    places: np.ndarray,
    *,
    how: tuple[ScoringRule, tuple[float, ...]],
) -> list[Example]:
    rule, levels = how
    past = _at(judged.past, chosen)
    days = judged.origin.astype("datetime64[D]") + np.arange(0, rule.horizon_days, STEP_DAYS)
    if predict is None:
        quantiles = window_quantiles(past, judged.index, days, levels=levels)
    else:
        quantiles = np.asarray(predict(past, days)[judged.index])
    band = quantiles[:, [quantile_index(levels, level) for level in (LOW, MEDIAN, HIGH)]]
    valid = past.valid & np.isfinite(past.values[judged.index])
    floors = {name: floor(past.values[judged.index], valid, past.dates, days) for name, floor in FLOORS.items()}
    answer = judged.answers[MODEL if predict is not None else "window_median"]
    return [
        _example(judged, pixel, tuple(places[number]), answer, (days, band[..., number], _each(floors, number)))
        for number, pixel in enumerate(chosen)
    ]


def _example(
    judged: Judged,
    pixel: int,
    place: tuple[float, ...],
    answer: np.ndarray,
    forecast: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]],
) -> Example:
    counted = judged.counted[:, pixel]
    valid = judged.past.valid[:, pixel]
    days, band, floors = forecast
    held = judged.truth[counted, pixel]
    screened = np.ones(counted.sum(), dtype=bool) if judged.screened is None else judged.screened[counted, pixel]
    return Example(
        judged.index,
        judged.origin,
        (float(place[0]), float(place[1])),
        float(np.abs(answer[counted, pixel] - held).mean()),
        judged.past.dates[valid],
        judged.past.values[judged.index][valid, pixel],
        judged.targets[counted],
        held,
        screened,
        days,
        band.T,
        floors,
    )


def _each(floors: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    return {name: values[:, number] for name, values in floors.items()}


def _at(past: Past, pixels: np.ndarray) -> Past:
    return replace(
        past,
        values={name: values[:, pixels] for name, values in past.values.items()},
        valid=past.valid[:, pixels],
        reflectance=None if past.reflectance is None else past.reflectance[:, :, pixels],
    )
