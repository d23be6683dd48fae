"""Recorded answers of SDSS, NED and VizieR through astroquery's own code, from a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.range_server import Faults
from servers.sky_services import NOT_FOUND, Reply, SkyServer, send_to_loopback, serve_sky

from tasks.errors import ConfigurationError, SourceRejected, SourceUnavailable
from tasks.limits import HttpLimits
from tasks.sky import target_queries
from tasks.sky.target_queries import query_table
from tasks.sky.targets import read_targets, targets_of_table

QUICK = HttpLimits(attempts=3, backoff_s=0.02, requests_per_s=10_000)
FILES = {
    "skyserver.sdss.org": "sdss/xid_im.txt",
    "ned.ipac.caltech.edu": "ned/query_object.xml",
    "vizier.cds.unistra.fr": "vizier/kang2010.xml",
}
REQUESTS = {"sdss": "SELECT TOP 18 ra, dec, objid FROM PhotoObj", "ned": "M1", "vizier": "J/ApJ/706/83"}

pytestmark = pytest.mark.server


class Recorded:
    """The services, with what they answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = dict(FILES)

    def __call__(self, path: str, query: dict[str, str]) -> Reply:
        host = path.split("/")[1]
        return Reply((self.folder / self.files[host]).read_bytes()) if host in self.files else NOT_FOUND


@pytest.fixture
def recorded(shared_data: Path) -> Recorded:
    return Recorded(shared_data / "galaxies" / "service_responses")


@pytest.fixture
def server(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> Iterator[SkyServer]:
    with serve_sky(recorded) as running:
        send_to_loopback(monkeypatch, running)
        yield running


def test_an_sql_query_gives_the_ids_of_sdss_digit_by_digit(server: SkyServer) -> None:
    table = query_table("sdss", REQUESTS["sdss"], limits=QUICK)
    found = targets_of_table(table.columns, where="sdss", merge_radius_arcsec=0.0)
    assert len(found.targets) == 18
    assert found.targets[0].object_id == "1237653651835781245"
    assert found.integer_ids
    assert server.requests[0][1]["cmd"].strip() == REQUESTS["sdss"]
    assert server.requests[0][1]["format"] == "csv"


def test_a_cone_becomes_sql_in_arcminutes(server: SkyServer) -> None:
    query_table("sdss", "0:08:05.6,14.83982,30", limits=QUICK)
    assert "fGetNearbyObjEq(2.0233333333333334, 14.83982, 0.5)" in server.requests[0][1]["cmd"]
    for wrong in ("1,2", "1,2,0", "1,2,x", "1,2,9999"):
        with pytest.raises(ConfigurationError, match="RA,DEC,RADIUS"):
            query_table("sdss", wrong, limits=QUICK)


def test_names_are_resolved_by_ned_one_by_one(server: SkyServer) -> None:
    table = query_table("ned", "M1; NGC 1952", limits=QUICK)
    found = targets_of_table(table.columns, where="ned")
    assert [query["objname"] for _, query, _ in server.requests] == ["M1", "NGC 1952"]
    (target,) = found.targets
    assert (target.object_id, target.ra, target.dec) == ("MESSIER 001", 83.63321, 22.01446)


def test_an_error_of_ned_in_a_good_answer_is_a_refusal(server: SkyServer, recorded: Recorded) -> None:
    recorded.files["ned.ipac.caltech.edu"] = "ned/error.xml"
    with pytest.raises(SourceRejected, match=r"ned \(nothing\) refuses: .*No note found"):
        query_table("ned", "nothing", limits=QUICK)
    assert len(server.requests) == 1


def test_an_unknown_name_is_a_bad_row_and_the_others_go_on(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def service(path: str, query: dict[str, str]) -> Reply:
        known = query["objname"] in ("M1", "NGC 1952")
        return Reply((recorded.folder / "ned" / ("query_object.xml" if known else "error.xml")).read_bytes())

    monkeypatch.setattr(target_queries, "QUERY_LIMITS", QUICK)
    with serve_sky(service) as server:
        send_to_loopback(monkeypatch, server)
        for request, bad in (("M1;NGC 99999;NGC 1952", 2), ("Nowhere;M1", 1)):
            found = read_targets(f"ned:{request}")
            assert [target.object_id for target in found.targets] == ["MESSIER 001"]
            (row,) = found.bad_rows
            assert row.row == bad
            assert f"ned ({request.split(';')[bad - 1]}) refuses" in row.reason
            assert found.rows == request.count(";") + 1
        with pytest.raises(SourceRejected, match="Nowhere"):
            read_targets("ned:Nobody;Nowhere")


def test_a_catalogue_of_vizier_comes_whole_with_computed_positions_and_conditions(server: SkyServer) -> None:
    table = query_table("vizier", "J/ApJ/706/83:Mstar=>3;Stg=I", limits=QUICK)
    assert len(targets_of_table(table.columns, where="vizier").targets) == 50
    asked = server.requests[0][1]["-source"].splitlines()
    assert asked[0] == "J/ApJ/706/83"
    assert {"-out.max=unlimited", "-out.add=_RAJ2000,_DEJ2000", "Mstar=>3", "Stg=I"} <= set(asked)
    with pytest.raises(ConfigurationError, match="COLUMN=CONDITION"):
        query_table("vizier", "J/ApJ/706/83:Mstar", limits=QUICK)


def test_a_vizier_without_its_database_is_unavailable_and_not_empty(server: SkyServer, recorded: Recorded) -> None:
    recorded.files["vizier.cds.unistra.fr"] = "vizier/no_server_error.xml"
    with pytest.raises(SourceUnavailable, match="The database is not currently reachable"):
        query_table("vizier", "J/ApJ/706/83", limits=QUICK)
    assert len(server.requests) == QUICK.attempts


def test_nothing_found_is_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_sky(lambda path, query: Reply(b"#Table1\nra,dec,objid\n")) as server:
        send_to_loopback(monkeypatch, server)
        with pytest.raises(SourceRejected, match="has nothing for") as empty:
            query_table("sdss", REQUESTS["sdss"], limits=QUICK)
        assert empty.value.reason == "no-data"


@pytest.mark.parametrize("service", list(REQUESTS))
@pytest.mark.parametrize("kind", ["429", "500", "html", "cut", "short", "empty", "reset"])
def test_each_fault_of_a_service_is_asked_again(
    recorded: Recorded, service: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_sky(recorded, Faults(share=1.0, times=2, kinds=(kind,), retry_after_s=0)) as server:
        send_to_loopback(monkeypatch, server)
        rows = len(query_table(service, REQUESTS[service], limits=QUICK).columns[0].missing)
        assert rows == {"sdss": 18, "ned": 1, "vizier": 50}[service]
        assert server.counts[kind] == 2


def test_a_query_reads_as_a_list(server: SkyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_queries, "QUERY_LIMITS", QUICK)
    found = read_targets("ned:M1")
    assert found.targets[0].object_id == "MESSIER 001"
    with pytest.raises(ConfigurationError, match="names no query"):
        read_targets("sdss:")
