"""`canopus generate`, `inpaint`, `transfer`, `interpolate`: plans without writing, errors in one line, whole runs; and a generated
galaxy whose profile is measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from galaxy_models import save_model, save_trained
from PIL import Image
from prefect.testing.utilities import prefect_test_harness
from sky_cases import sersic_cutout
from torch import Tensor
from typer.testing import CliRunner

from flows.cli import app, main
from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.training import TrainConfig, fit
from tasks.sky.cutout_files import write_cutout
from tasks.sky.trails import across


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a small model, two images of which one has a trail, and a drawing."""
    save_model(tmp_path / "warehouse")
    clean, spoilt = (sersic_cutout(name, side=64, scale=0.262) for name in ("clean", "spoilt"))
    flux = spoilt.flux.copy()
    flux[1] += (0.03 * np.exp(-0.5 * ((across((64, 64), 0.6) - 9) / 2.5) ** 2)).astype(np.float32)
    spoilt.flux[:] = flux
    for cutout in (clean, spoilt):
        write_cutout(tmp_path / "in" / f"{cutout.object_id}.fits", cutout)
    y, x = np.indices((64, 64)) - 32
    drawing = np.where(x**2 / 400 + y**2 / 150 < 1, 200, 0).astype(np.uint8)
    Image.fromarray(np.repeat(drawing[..., None], 3, axis=2)).save(tmp_path / "in" / "drawing.png")
    return tmp_path


def command(folder: Path, name: str, *more: object) -> list[str]:
    return [name, *map(str, more), "--model", "tiny", "--warehouse", str(folder / "warehouse"), "--steps", "3"]


def last_line(arguments: list[str], code: int = 0) -> dict:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    found: dict = json.loads(result.stdout.splitlines()[-1])
    return found


def test_dry_runs_say_what_would_be_done_and_write_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    plan = last_line(command(folder, "generate", "--galaxies", 70, "--batch-size", 32, "--dry-run"))
    assert (plan["galaxies"], plan["held"], plan["batches"], plan["run"]) == (70, 0, 3, None)
    image, drawing = folder / "in" / "spoilt.fits", folder / "in" / "drawing.png"
    plan = last_line(command(folder, "inpaint", image, "--out", folder / "out", "--dry-run"))
    assert (plan["images"], plan["done"]) == ([str(image)], [])
    plan = last_line(command(folder, "transfer", drawing, "--out", folder / "out", "--dry-run"))
    assert plan["images"] == [str(drawing)]
    plan = last_line(command(folder, "interpolate", drawing, image, "--out", folder / "out", "--dry-run"))
    assert plan["frames"] == 7
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("generate", "--model", "none"), "no model 'none'", 1),
        (("generate", "--galaxies", "0"), "galaxies", 2),
        (("generate", "--sampler", "euler"), "sampler", 2),
        (("generate", "--ask", "magnitude=17"), "--ask magnitude", 2),
        (("generate", "--guidance", "2"), "has no conditions", 2),
        (("generate", "--store", "../x"), "store", 2),
        (("inpaint", "nowhere.fits", "--out", "out"), "nowhere.fits: there is no such file", 1),
        (("inpaint", "{in}/spoilt.fits", "--out", "{in}"), "no image is overwritten", 2),
        (("inpaint", "{in}/spoilt.fits", "--out", "out", "--mask", "stars"), "--mask stars", 2),
        (("inpaint", "{in}/spoilt.fits", "--out", "out", "--draws", "0"), "draws", 2),
        (("transfer", "{in}/drawing.png", "--out", "out", "--strength", "2"), "strength", 2),
        (("interpolate", "{in}/drawing.png", "{in}/drawing.png", "--out", "out"), "two images are called drawing", 2),
        (("interpolate", "{in}/drawing.png", "{in}/clean.fits", "--out", "out", "--frames", "1"), "frames", 2),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
    code: int,
) -> None:
    filled = [word.replace("{in}", str(folder / "in")) for word in arguments]
    model = [] if "--model" in filled else ["--model", "tiny"]
    given = ["canopus", *filled, *model, "--warehouse", str(folder / "warehouse"), "--dry-run"]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == code, said
    assert len(said) == 1
    assert message in said[0]


@pytest.fixture(scope="module")
def _prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_prefect")
def test_every_command_ends_with_its_files_and_again_with_the_same(folder: Path) -> None:
    generate = command(folder, "generate", "--galaxies", 3, "--batch-size", 2, "--fits", folder / "fits")
    made = last_line(generate)
    assert made["counts"] == {"made": 3, "held": 0}
    assert Path(made["details"]["picture"]).is_file()
    assert len(list((folder / "fits").glob("*.fits"))) == 3
    again = last_line(generate)
    assert (again["counts"], again["run"]) == ({"made": 0, "held": 3}, made["run"])

    images = (folder / "in" / "spoilt.fits", folder / "in" / "clean.fits")
    inpaint = command(folder, "inpaint", *images, "--out", folder / "filled", "--draws", 2)
    assert last_line(inpaint)["counts"] == {"filled": 1, "whole": 1}
    assert last_line(inpaint)["counts"] == {"held": 1, "whole": 1}
    (folder / "in" / "broken.fits").write_bytes(b"SIMPLE  = broken")
    failed = last_line(
        command(folder, "inpaint", folder / "in" / "broken.fits", images[0], "--out", folder / "filled"), 3
    )
    assert failed["counts"] == {"failed": 1, "filled": 1}
    assert "unreadable" in failed["failures"][0]

    drawing = folder / "in" / "drawing.png"
    transfer = command(folder, "transfer", drawing, images[1], "--out", folder / "transferred")
    assert last_line(transfer)["counts"] == {"made": 2}
    assert last_line(transfer)["counts"] == {"held": 2}
    galaxy = sorted((folder / "fits").glob("*.fits"))[0]
    interpolate = command(folder, "interpolate", drawing, galaxy, "--out", folder / "between", "--frames", 3)
    between = last_line(interpolate)
    assert len(between["products"]) == 3
    assert Path(between["details"]["picture"]).is_file()


class OneGalaxy:
    """Batches of one galaxy, brighter and fainter, turned and mirrored, with noise of its own each time."""

    def at(self, position: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(position)
        flux = torch.as_tensor(sersic_cutout(side=32, scale=0.524, magnitude=16.0, half_light=3.0, noise=0.0).flux)
        turned = torch.stack([torch.rot90(flux, turn % 4, (1, 2)) for turn in range(16)])
        bright = 0.5 + torch.rand((16, 1, 1, 1), generator=generator)
        return {"flux": bright * turned + 0.006 * torch.randn(turned.shape, generator=generator)}

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["flux"])


@pytest.mark.slow
@pytest.mark.usefixtures("_prefect")
def test_a_galaxy_made_by_generate_comes_out_of_the_profile_flow_with_a_profile(tmp_path: Path) -> None:
    batches = OneGalaxy()
    config = DiffusionConfig(pixels=32, widths=(16, 32), depths=(1, 1), attended=0)
    scaled = GalaxyDiffusion(config).to_scaled(batches.at(0)["flux"])
    spread = tuple(scaled.square().mean(dim=(0, 2, 3)).sqrt().tolist())
    model = GalaxyDiffusion(
        DiffusionConfig(pixels=32, widths=(16, 32), depths=(1, 1), attended=0, sigma_data=spread, sigma_max=60.0),
        generator=torch.Generator().manual_seed(0),
    )
    state = fit(model, batches, TrainConfig(steps=400, learning_rate=3e-3, ema_decay=0.98, warmup_steps=20, seed=1))
    model.load_state_dict(state.weights)
    save_trained(tmp_path / "warehouse", model.eval(), "tiny")
    arguments = command(tmp_path, "generate", "--galaxies", 8, "--store", "made")
    assert last_line([*arguments[:-1], "20"])["counts"] == {"made": 8, "held": 0}
    profiles = ["profiles", "--source", "store:made", "--method", "isophote", "--workers", "1", "--no-pages"]
    found = last_line([*profiles, "--warehouse", str(tmp_path / "warehouse")])
    assert found["counts"]["measured"] == 8
    table = pq.read_table(next(Path(found["products"][0]).parent.rglob("profiles.parquet"))).to_pandas()
    r = table[table["band"] == "r"]
    assert len(r) == 8
    # half a magnitude brighter in each band than the one before; training galaxies lie within 0.75 of the middle
    assert abs(r["total_magnitude"].median() - 15.5) < 0.75
    assert all(len(radii) > 8 for radii in r["radius_arcsec"])
