"""Real galaxies that isophotes measured, as examples for the profile network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from models.polar import Ellipses, Images, Polar, Pyramid, measure_sky
from storage.cutouts import Cutout
from storage.location import Location
from tasks.errors import ConfigurationError
from tasks.sky.network_pool import BANDS, Shard, join_shards, shard_of, starts_about
from tasks.sky.network_profiles import images_of_cutouts
from tasks.sky.photometry import image_angles
from tasks.sky.prepare import ensure_prepared, jacobian_at, read_wcs
from tasks.sky.profile import ObjectFlag, Profile, RadiusFlag
from tasks.sky.profile_evaluation import read_cutout, read_profiles, readers_of

_UNFIT = ObjectFlag.MOMENT_GEOMETRY | ObjectFlag.TIME_LIMIT | ObjectFlag.NO_SKY | ObjectFlag.OFF_CENTRE
_FEWEST_RADII = 12
_OUTER_SHARE = 1 / 3


def read_real(root: Location, products: Sequence[str]) -> Shard:
    """Return the galaxies of products of profiles whose isophotes are sound, about ellipses that are more or less off.

    Parameters
    ----------
    root : Location
        Warehouse in whose sky stores the cutouts lie.
    products : sequence of str
        Folders or Parquet files; of method isophote, best with one ellipse at all radii (``--geometry fixed``).

    Raises
    ------
    ConfigurationError
        Where a product has no such profile, or its cutouts are not in the warehouse.
    """
    generator = torch.Generator().manual_seed(0)
    parts = [
        _example(cutout, profiles, generator) for product in products for cutout, profiles in _sound(root, product)
    ]
    return join_shards(parts)


def _sound(root: Location, product: str) -> Iterator[tuple[Cutout, list[Profile]]]:
    by_object: dict[tuple[str, str], list[Profile]] = {}
    for profile in read_profiles(product):
        fit = profile.state == "measured" and profile.method == "isophote" and not profile.object_flags & _UNFIT
        if fit and profile.radius_arcsec.size >= _FEWEST_RADII:
            by_object.setdefault((profile.object_id, profile.snapshot), []).append(profile)
    if not by_object:
        raise ConfigurationError(
            f"{product}: no sound profile of method isophote; make some with canopus profiles --method isophote"
        )
    for (object_id, snapshot), profiles in by_object.items():
        cutout = read_cutout(readers_of(root, snapshot), object_id)
        if cutout is None:
            raise ConfigurationError(f"{product}: no cutout of {object_id} in {root}")
        yield ensure_prepared(cutout), profiles[:BANDS]


def _example(cutout: Cutout, profiles: Sequence[Profile], generator: torch.Generator) -> Shard:
    wanted = [cutout.band_names.index(profile.band) for profile in profiles]
    images = images_of_cutouts([cutout])
    images = Images(
        images.flux[:, wanted], images.weight[:, wanted], images.sigma[:, wanted], images.shape, images.fwhm[:, wanted]
    )
    pyramid, true = Pyramid(images, measure_sky(images)), ellipses_of(cutout, profiles[0])
    size = torch.tensor([profiles[0].half_light_radius_arcsec / cutout.pixel_scale_arcsec]).nan_to_num(4.0)
    starts = starts_about(true, size, centre=true.centre, generator=generator)
    read = [(start, pyramid.polar(start)) for start in starts]
    truths = [_truth(cutout, images, polar, profiles, wanted) for _, polar in read]
    return shard_of(images, pyramid.sky, true, read, truths)


def ellipses_of(cutout: Cutout, profile: Profile) -> Ellipses:
    """Return the outer ellipse of a measured profile on the pixels of its cutout: the mean of its outer third."""
    outer = slice(-max(1, round(profile.radius_arcsec.size * _OUTER_SHARE)), None)
    wcs = read_wcs(cutout.wcs)
    jacobian = None if wcs is None else jacobian_at(wcs, profile.centre_x, profile.centre_y)
    twice = 2 * image_angles(profile.position_angle[outer], jacobian)
    flat = profile.ellipticity[outer]
    shape = [float((flat * wave).mean()) for wave in (np.cos(twice), np.sin(twice))]
    return Ellipses(
        torch.tensor([[profile.centre_x, profile.centre_y]], dtype=torch.float32),
        torch.tensor([shape], dtype=torch.float32),
    )


def _truth(
    cutout: Cutout, images: Images, polar: Polar, profiles: Sequence[Profile], wanted: Sequence[int]
) -> torch.Tensor:
    """Return measured intensities at the radii of the cells, (1, K, R), in units of a pixel's noise."""
    radius = polar.radius[0].double().numpy() * cutout.pixel_scale_arcsec
    rows = []
    for place, (profile, index) in enumerate(zip(profiles, wanted, strict=True)):
        sound = ~(profile.flags & (RadiusFlag.MOSTLY_MASKED | RadiusFlag.OFF_IMAGE)).astype(bool)
        known = profile.radius_arcsec[sound]
        found = np.interp(np.log(radius), np.log(known), profile.intensity[sound], left=np.nan, right=np.nan)
        unit = cutout.nanomaggies_per_unit(index) / cutout.pixel_scale_arcsec**2 * float(images.sigma[0, place])
        rows.append(torch.from_numpy(found / unit).float())
    return torch.stack(rows)[None]
