"""Targets from SDSS, VizieR and NED through astroquery."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.errors import ConfigurationError, SourceRejected
from tasks.limits import HttpLimits, TransferCount
from tasks.ranges import PassingError, with_retries
from tasks.sky.target_columns import Column, degrees_of
from tasks.sky.target_files import columns_of

if TYPE_CHECKING:
    from astropy.table import Table

QUERY_LIMITS = HttpLimits(attempts=4, concurrent=2, requests_per_s=2.0)
_NED_NAME = "Object Name"
_COMPUTED = ["*", "_RAJ2000", "_DEJ2000"]


@dataclass(frozen=True)
class Answer:
    """What a query gave.

    Parameters
    ----------
    columns : list of Column
    refused : mapping of int to str
        Why a row is empty, by its number from 1: what was asked for by name and is not known.
    """

    columns: list[Column]
    refused: Mapping[int, str] = field(default_factory=dict)


def query_table(service: str, request: str, *, limits: HttpLimits | None = None) -> Answer:
    """Return what a service answers.

    Parameters
    ----------
    service : str
        ``sdss`` (SQL that begins with SELECT, or ``RA,DEC,RADIUS_ARCSEC``: every photometric object there),
        ``vizier`` (``CATALOGUE[:COLUMN=CONDITION;...]``) or ``ned`` (names, separated by semicolons).
    limits : HttpLimits, optional
        None = twice a second at most.

    Raises
    ------
    ConfigurationError
        A request that cannot be read.
    SourceRejected
        The service refuses it, or all names in it, or has nothing: with reason ``no-data``.
    SourceUnavailable
        It does not answer.
    """
    if not request.strip():
        raise ConfigurationError(f"{service}: names no query")
    if service == "ned":
        return _ned(request.strip(), limits or QUERY_LIMITS)
    ask = {"sdss": _sdss, "vizier": _vizier}[service]
    return Answer(columns_of(_filled(ask(request.strip(), limits or QUERY_LIMITS), service, request)))


def asked(
    ask: Callable[[], Any],
    read: Callable[[Any], Any],
    *,
    service: str,
    url: str,
    limits: HttpLimits,
    deadline: float | None = None,
) -> Any:
    """Return what a service answers, tried again while it fails in a way that may pass.

    Parameters
    ----------
    ask : callable
        Astroquery's own request; its answer is neither read from astroquery's cache nor left there.
    read : callable
        Astroquery's own reading of the answer, which is looked at first: of half a table, or of a page, that makes a
        table of less.

    Raises
    ------
    SourceRejected, SourceUnavailable
    """
    import requests
    from astroquery import cache_conf
    from astroquery.exceptions import RemoteServiceError, TableParseError

    def attempt() -> Any:
        try:
            with cache_conf.set_temp("cache_active", False):
                answer = ask()
            answer.raise_for_status()
            _check(answer.text, service)
            return read(answer)
        except RemoteServiceError as error:
            raise SourceRejected(f"{service} refuses: {_words(error)}", reason="invalid-input") from error
        except requests.HTTPError as error:
            raise _by_status(error, service) from error
        except (requests.RequestException, TimeoutError, ConnectionError) as error:
            raise PassingError(f"{service} did not answer ({type(error).__name__})") from error
        except (TableParseError, ValueError) as error:
            raise PassingError(f"{service} answered with what is no table: {_words(error)}") from error

    parts = urlsplit(url)
    name = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return with_retries(attempt, name=name, limits=limits, deadline=deadline, count=TransferCount())


def _check(text: str, service: str) -> None:
    """Refuse an answer that is empty, a web page, cut, or says that the service is down."""
    start = text[:500].lstrip().lower()
    if not start:
        raise PassingError(f"{service} sent an empty answer")
    if start.startswith(("<!doctype html", "<html")):
        raise PassingError(f"{service} sent a web page in place of a table")
    is_xml = start.startswith("<")
    if not (re.search(r"</(\w+:)?VOTABLE>\s*$", text, re.IGNORECASE) if is_xml else text.endswith("\n")):
        raise PassingError(f"{service} sent an answer that is cut, after {len(text)} characters")
    if is_xml and not re.search(r"<(\w+:)?TABLE\b", text):
        said = re.findall(r'<(?:\w+:)?INFO [^>]*name="Error"[^>]*value="([^"]*)"', text)
        if words := " ".join(word.strip() for word in said if word.strip()):
            raise PassingError(f"{service} says: {words[:160]}")


def _by_status(error: Any, service: str) -> Exception:
    status = error.response.status_code if error.response is not None else 0
    if status in (400, 401, 403, 404):
        return SourceRejected(f"{service} refuses: HTTP status {status}", reason="invalid-input")
    return PassingError(f"HTTP status {status}")


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _filled(table: Table | None, service: str, request: str) -> Table:
    if table is None or not len(table):
        raise SourceRejected(f"{service} has nothing for {request[:80]!r}", reason="no-data")
    return table


def _sdss(request: str, limits: HttpLimits) -> Table | None:
    from astroquery.sdss import SDSS, conf

    if not request.lower().startswith("select"):
        ra, dec, radius = _cone(request)
        request = sdss_cone(ra, dec, radius_arcsec=radius)
    return asked(
        lambda: SDSS.query_sql_async(request, cache=False),
        SDSS._parse_result,
        service="sdss",
        url=conf.skyserver_baseurl,
        limits=limits,
    )


def sdss_cone(ra: float, dec: float, *, radius_arcsec: float) -> str:
    """Return the SQL for every photometric object about a position (degrees)."""
    return (
        "SELECT p.ra, p.dec, p.objid, p.run, p.rerun, p.camcol, p.field FROM PhotoObj AS p "
        f"JOIN dbo.fGetNearbyObjEq({ra!r}, {dec!r}, {radius_arcsec / 60.0!r}) AS n ON n.objID = p.objID"
    )


def _cone(request: str) -> tuple[float, float, float]:
    parts = request.split(",")
    try:
        if len(parts) != 3 or not 0 < (radius := float(parts[2])) <= 3600:
            raise ValueError
        return degrees_of(parts[0], hours=True), degrees_of(parts[1], hours=False), radius
    except ValueError:
        raise ConfigurationError(
            f"sdss:{request[:60]}: SELECT ... or RA,DEC,RADIUS in degrees and arcsec (up to 3600) is expected"
        ) from None


def _vizier(request: str, limits: HttpLimits) -> Table | None:
    from astroquery.vizier import Vizier

    catalogue, _, conditions = request.partition(":")
    filters = {}
    for condition in filter(None, conditions.split(";")):
        column, equals, value = condition.partition("=")
        if not equals:
            raise ConfigurationError(f"vizier:{request[:60]}: COLUMN=CONDITION is expected, {condition!r} came")
        filters[column.strip()] = value.strip()
    client = Vizier(columns=_COMPUTED, column_filters=filters, row_limit=-1)
    tables = asked(
        lambda: client.query_constraints_async(catalog=catalogue, cache=False),
        client._parse_result,
        service="vizier",
        url=client._server_to_url(),
        limits=limits,
    )
    return tables[0] if len(tables) else None


def _ned(request: str, limits: HttpLimits) -> Answer:
    """Ask for one name after the other; one that is not known is an empty row."""
    from astropy.table import Table, vstack
    from astroquery.ipac.ned import Ned

    names = [name.strip() for name in request.split(";") if name.strip()]
    tables: list[Table] = []
    refused: dict[int, str] = {}
    for number, name in enumerate(names, start=1):
        try:
            answer = asked(
                functools.partial(Ned.query_object_async, name),
                Ned._parse_result,
                service=f"ned ({name})",
                url=Ned.OBJ_SEARCH_URL,
                limits=limits,
            )
            tables.append(_filled(answer, "ned", name)[:1])
        except SourceRejected as error:
            if len(refused) + 1 == len(names):
                raise
            refused[number] = str(error)
            tables.append(Table({_NED_NAME: [name]}))
    return Answer(columns_of(vstack(tables, metadata_conflicts="silent")), refused)
