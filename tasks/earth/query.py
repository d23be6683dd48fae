"""What a search asks for, and whether an item answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Any

import shapely
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from tasks.errors import ConfigurationError

CLOUD_COVER = "eo:cloud_cover"
Moment = str | date | datetime


@dataclass(frozen=True)
class Query:
    """Items of one collection, by place, time and cloud cover; make one with `make_query`.

    Parameters
    ----------
    geometry : dict or None
        GeoJSON geometry in longitude and latitude; None for everywhere.
    start, end : datetime
        UTC, both ends included; an item with a span of time answers where the spans meet.
    max_cloud : float or None
        Percent. An item that does not state its cloud cover does not answer a query that limits it: that is how the
        servers that filter themselves read it, so it is how all are read.
    """

    collection: str
    geometry: Mapping[str, Any] | None
    start: datetime
    end: datetime
    max_cloud: float | None

    @property
    def interval(self) -> str:
        """Return the span of time as STAC APIs take it."""
        return f"{_rfc3339(self.start)}/{_rfc3339(self.end)}"

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Return west, south, east, north in degrees."""
        west, south, east, north = self._shape.bounds
        return west, south, east, north

    def is_answered_by(self, item: Mapping[str, Any]) -> bool:
        """Return whether an item, as JSON, is what is asked for; its collection is not looked at.

        Raises
        ------
        ValueError
            Where the item states no time or no place, or none that can be read; KeyError and TypeError likewise.
        """
        properties = item.get("properties") or {}
        return (
            self._meets_time(properties)
            and self._is_clear_enough(properties.get(CLOUD_COVER))
            and self._meets_place(item)
        )

    def _is_clear_enough(self, cloud_cover: Any) -> bool:
        if self.max_cloud is None:
            return True
        return isinstance(cloud_cover, int | float) and cloud_cover <= self.max_cloud

    def _meets_time(self, properties: Mapping[str, Any]) -> bool:
        first = properties.get("start_datetime") or properties["datetime"]
        last = properties.get("end_datetime") or properties["datetime"]
        return parse_moment(first) <= self.end and parse_moment(last) >= self.start

    def _meets_place(self, item: Mapping[str, Any]) -> bool:
        if self.geometry is None:
            return True
        if item.get("geometry") is None:
            if item.get("bbox") is None:
                raise ValueError("it has neither geometry nor bbox")
            return bool(self._shape.intersects(_box(item["bbox"])))
        return bool(self._shape.intersects(shape(item["geometry"])))

    @cached_property
    def _shape(self) -> BaseGeometry:
        made = shape(self.geometry)
        shapely.prepare(made)
        return made


def make_query(
    collection: str,
    *,
    geometry: Mapping[str, Any] | None,
    start: Moment,
    end: Moment,
    max_cloud: float | None = None,
) -> Query:
    """Return a checked query; a date without a time stands for the whole day.

    Raises
    ------
    ConfigurationError
        Where the end lies before the start, a date or the geometry cannot be read, or lies outside the Earth.
    """
    first, last = _edge(start, time.min, "start"), _edge(end, time(23, 59, 59, 999000), "end")
    if last < first:
        raise ConfigurationError(f"end: {end} lies before the start, {start}")
    if max_cloud is not None and not 0 <= max_cloud <= 100:
        raise ConfigurationError(f"max_cloud: {max_cloud} is not a percentage, 0 to 100")
    _check_geometry(geometry)
    return Query(collection, geometry, first, last, max_cloud)


def parse_moment(text: str) -> datetime:
    """Return an RFC 3339 time as UTC; one without a zone is taken as UTC.

    Examples
    --------
    >>> parse_moment("2020-01-01T00:00:00.000Z").isoformat()
    '2020-01-01T00:00:00+00:00'
    """
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _edge(moment: Moment, time_of_day: time, name: str) -> datetime:
    if isinstance(moment, str):
        try:
            moment = date.fromisoformat(moment) if len(moment) == 10 else datetime.fromisoformat(moment)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {moment!r} is not a date like 2024-05-31") from error
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time_of_day)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _check_geometry(geometry: Mapping[str, Any] | None) -> None:
    if geometry is None:
        return
    try:
        made = shape(geometry)
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ConfigurationError("geometry: not a GeoJSON geometry") from error
    west, south, east, north = made.bounds if not made.is_empty else (999.0,) * 4
    if made.is_empty or west < -180 or east > 180 or south < -90 or north > 90:
        raise ConfigurationError("geometry: empty, or not in longitude and latitude (EPSG:4326)")


def _box(bounds: list[float]) -> BaseGeometry:
    half = len(bounds) // 2
    return box(bounds[0], bounds[1], bounds[half], bounds[half + 1])


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")
