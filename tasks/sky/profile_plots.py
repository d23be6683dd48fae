"""The picture of an evaluation of profiles: how far methods lie from their reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.earth.pictures import MUTED
from tasks.earth.plots import legend_above, new_figure, style_panel, to_png, write_title
from tasks.sky.qa_plots import logarithmic

if TYPE_CHECKING:
    from tasks.sky.profile_comparison import Comparison

COLOURS = {"isophote": "#0b5d3b", "photutils": "#d1742b", "network": "#2f4b9b", "published": "#7a4fa3"}
_LINES = 60


def draw_scores(compared: Mapping[str, Mapping[str, list[Comparison | None]]], report: Mapping[str, Any]) -> bytes:
    """Return a PNG: for each reference the share of profiles by RMS, and differences by radius."""
    figure = new_figure(9.6, 0.9 + 3.3 * len(compared))
    rows = figure.subplots(len(compared), 2, squeeze=False)
    for (left, right), (tool, methods) in zip(rows, compared.items(), strict=True):
        for method, found in methods.items():
            there = [one for one in found if one is not None]
            colour = COLOURS.get(method, MUTED)
            if not there:
                continue
            rms = np.sort([one.rms for one in there])
            left.step(rms, np.arange(1, rms.size + 1) / len(found), where="post", color=colour, label=method)
            for one in there[:_LINES]:
                right.plot(one.radius_arcsec, one.difference, color=colour, linewidth=0.5, alpha=0.5)
        style_panel(left, title=f"share of profiles by RMS, against {tool}")
        everything = [one for found in methods.values() for one in found if one is not None]
        if everything:
            errors, radii = [one.rms for one in everything], np.concatenate([one.radius_arcsec for one in everything])
            logarithmic(left, max(min(errors), 1e-3) * 0.8, max(*errors, 1e-3) * 1.2)
            logarithmic(right, radii.min() * 0.9, radii.max() * 1.1)
        left.set_ylim(0, 1.02)
        left.set_xlabel("RMS, mag", fontsize=9, color=MUTED)
        style_panel(right, title=f"measured - {tool}, mag")
        right.axhline(0, color=MUTED, linewidth=0.8)
        right.set_ylim(-0.6, 0.6)
        right.set_xlabel("semi-major axis, arcsec", fontsize=9, color=MUTED)
    legend_above(figure, rows[0][0])
    write_title(figure, "Profiles", f"{report['product']} against {report['truth']}")
    return to_png(figure)
