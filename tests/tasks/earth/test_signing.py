"""Hrefs are signed at read time, and only those that need it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servers.range_server import RangeServer, serve_folder

from tasks.earth.signing import PlanetarySigner, default_signer
from tasks.errors import SourceUnavailable
from tasks.ranges import no_signature

HREF = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/32/T/PS/B04.tif"


def issue_token(folder: Path, token: str) -> None:
    target = folder / "sentinel2l2a01" / "sentinel2-l2"
    target.parent.mkdir(exist_ok=True)
    expiry = (datetime.now(UTC) + timedelta(minutes=45)).isoformat()
    target.write_text(json.dumps({"msft:expiry": expiry, "token": token}))


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    sas = pytest.importorskip("planetary_computer.sas")
    with serve_folder(tmp_path) as server:
        monkeypatch.setattr(sas, "TOKEN_CACHE", {})
        monkeypatch.setattr(sas.Settings.get(), "sas_url", server.url)
        yield server


def test_a_token_is_fetched_once_and_renewed_when_forgotten(tokens: RangeServer) -> None:
    sign = PlanetarySigner()
    issue_token(tokens.folder, "sig=first")
    assert {sign(HREF), sign(HREF)} == {f"{HREF}?sig=first"}
    assert len(tokens.requests) == 1
    issue_token(tokens.folder, "sig=second")
    sign.forget(HREF)
    assert sign(HREF) == f"{HREF}?sig=second"


def test_hrefs_of_others_are_left_alone(tokens: RangeServer) -> None:
    for href in ("https://example.org/a.tif?x=1", "s3://bucket/a.tif", "/a/b.tif"):
        assert PlanetarySigner()(href) == href
    assert tokens.requests == []


def test_no_token_is_unavailable(tokens: RangeServer) -> None:
    with pytest.raises(SourceUnavailable, match=r"B04\.tif: no signature could be had"):
        PlanetarySigner()(HREF)


def test_the_default_is_the_planetary_computers_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("planetary_computer")
    assert isinstance(default_signer(), PlanetarySigner)
    monkeypatch.setitem(__import__("sys").modules, "planetary_computer", None)
    assert default_signer() is no_signature
