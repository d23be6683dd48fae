"""Generated pixel series from a very wide prior: what a forecaster is pre-trained on before it sees a real place."""

from tasks.earth.prior.batches import PriorBatches
from tasks.earth.prior.pool import PoolBatches, PoolChoice, SeriesPool, held_out_places, open_series_pool
from tasks.earth.prior.series import PriorConfig, Series, draw_series

__all__ = [
    "PoolBatches",
    "PoolChoice",
    "PriorBatches",
    "PriorConfig",
    "Series",
    "SeriesPool",
    "draw_series",
    "held_out_places",
    "open_series_pool",
]
