"""The core: the slow formula of attention, causality, the cache, batches of different length, dates, published sizes."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.autoregressive import Autoregressive
from models.transformer import (
    YEAR_DAYS,
    Attention,
    KeyValueCache,
    Transformer,
    TransformerConfig,
    date_angles,
    initialise,
    rotate,
)

SMALL = TransformerConfig(layers=3, heads=4, width=32)
STEPS = 17

PUBLISHED_ASTROPT = {
    (4, 8, 128): 1_067_520,
    (6, 8, 256): 5_444_864,
    (6, 8, 384): 11_951_616,
    (6, 8, 512): 20_981_504,
    (12, 12, 768): 89_087_232,
    (24, 16, 1024): 308_861_696,
    (16, 8, 2048): 829_502_208,
    (26, 32, 2560): 2_081_572_608,
}
"""AstroPT v1: (layers, heads, width) to parameters without positions."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_days(batch: int, steps: int, seed: int = 0) -> Tensor:
    gaps = torch.rand((batch, steps), generator=torch.Generator().manual_seed(seed)) * 30
    return 5000 + gaps.cumsum(dim=1).floor()


@pytest.fixture(scope="module")
def core() -> Transformer:
    """Return a core whose weights are large enough that every block matters."""
    core = Transformer(SMALL).eval()
    draw = torch.Generator().manual_seed(1)
    for parameter in core.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, 0, 0.2, generator=draw)
    return core.requires_grad_(False)


def slow_attention(attention: Attention, x: Tensor, angles: Tensor | None) -> Tensor:
    """Return causal attention by loops: Vaswani et al. 2017, eq. 1, one head and one query at a time."""
    batch, steps, width = x.shape
    size = width // attention.heads
    joined = torch.zeros_like(x)
    for row in range(batch):
        q, k, v = (x[row] @ part.T for part in attention.c_attn.weight.chunk(3))  # (T, D) each
        for head in range(attention.heads):
            own = slice(head * size, (head + 1) * size)
            turned = [turn_slowly(part[:, own], None if angles is None else angles[row]) for part in (q, k)]
            for step in range(steps):
                score = turned[1][: step + 1] @ turned[0][step] / math.sqrt(size)
                weight = score.exp() / score.exp().sum()
                joined[row, step, own] = weight @ v[: step + 1, own]
    return joined @ attention.c_proj.weight.T


def turn_slowly(x: Tensor, angles: Tensor | None) -> Tensor:
    """Return pairs (i, i + D/H/2) of channels as complex numbers, multiplied by exp(i angle)."""
    if angles is None:
        return x
    first, second = x.chunk(2, dim=-1)
    turned = torch.complex(first, second) * torch.exp(1j * angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


@pytest.mark.parametrize("dated", [False, True])
def test_attention_is_the_slow_formula(core: Transformer, dated: bool) -> None:
    attention = core.h[0].attn
    x = drawn(2, 9, SMALL.width)
    angles = date_angles(random_days(2, 9), SMALL.head_width // 2) if dated else None
    torch.testing.assert_close(attention(x, None, angles), slow_attention(attention, x, angles), atol=1e-5, rtol=1e-5)


@given(step=st.integers(0, STEPS - 1), dated=st.booleans())
@settings(max_examples=25, deadline=None)
def test_changing_a_step_changes_no_output_before_it(core: Transformer, step: int, dated: bool) -> None:
    x = drawn(2, STEPS, SMALL.width)
    angles = date_angles(random_days(2, STEPS), SMALL.head_width // 2) if dated else None
    before = core(x, angles=angles)
    changed = x.clone()
    changed[:, step] += 3 * drawn(2, SMALL.width, seed=2)
    after = core(changed, angles=angles)
    torch.testing.assert_close(after[:, :step], before[:, :step], atol=1e-6, rtol=0)
    assert (after[:, step:] - before[:, step:]).abs().amax(dim=(0, 2)).min() > 1e-5


@given(
    cuts=st.lists(st.integers(1, STEPS - 1), unique=True, max_size=6), capacity=st.integers(0, 30), dated=st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_with_a_cache_any_split_gives_the_same(core: Transformer, cuts: list[int], capacity: int, dated: bool) -> None:
    x = drawn(2, STEPS, SMALL.width)
    angles = date_angles(random_days(2, STEPS), SMALL.head_width // 2) if dated else None
    cache, parts = core.new_cache(capacity=capacity), []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), STEPS], strict=True):
        part = None if angles is None else angles[:, begin:end]
        parts.append(core(x[:, begin:end], angles=part, cache=cache))
        assert cache.length == end
    assert (torch.cat(parts, dim=1) - core(x, angles=angles)).abs().max() <= 1e-5


def test_the_cache_takes_its_room_once() -> None:
    cache = KeyValueCache(1, capacity=8)
    first, _ = cache.extend(0, drawn(1, 2, 3, 4), drawn(1, 2, 3, 4))
    later, _ = cache.extend(0, drawn(1, 2, 5, 4), drawn(1, 2, 5, 4))
    assert first.data_ptr() == later.data_ptr()
    assert later.shape == (1, 2, 8, 4)
    more, _ = cache.extend(0, drawn(1, 2, 1, 4, seed=3), drawn(1, 2, 1, 4))
    assert torch.equal(more[:, :, :3], first)
    assert torch.equal(more[:, :, 8:], drawn(1, 2, 1, 4, seed=3))


@given(lengths=st.lists(st.integers(1, 12), min_size=2, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_sequences_of_different_length_in_one_batch_are_as_alone(
    core: Transformer, lengths: list[int], seed: int
) -> None:
    """Padding on either side: a mask hides it on the left, causality on the right."""
    steps = max(lengths)
    parts = [drawn(1, length, SMALL.width, seed=seed + number) for number, length in enumerate(lengths)]
    on_the_left = torch.full((len(parts), steps, SMALL.width), 9.0)
    on_the_right = on_the_left.clone()
    for number, part in enumerate(parts):
        on_the_left[number, steps - lengths[number] :] = part
        on_the_right[number, : lengths[number]] = part
    own = torch.arange(steps) >= steps - torch.tensor(lengths)[:, None]
    attend = own[:, None, :] & torch.ones(steps, steps, dtype=torch.bool).tril()
    left = core(on_the_left, attend=attend | torch.eye(steps, dtype=torch.bool))
    right = core(on_the_right)
    for number, part in enumerate(parts):
        alone = core(part)[0]
        torch.testing.assert_close(left[number, steps - lengths[number] :], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(right[number, : lengths[number]], alone, atol=1e-5, rtol=1e-5)


@given(day=st.integers(-5000, 20_000), later=st.integers(-9000, 9000), pairs=st.integers(1, 16))
def test_the_rotary_product_depends_on_the_difference_of_dates_alone(day: int, later: int, pairs: int) -> None:
    q, k = drawn(1, 1, 1, 2 * pairs), drawn(1, 1, 1, 2 * pairs, seed=1)

    def product(at: float, other: float) -> Tensor:
        angles = date_angles(torch.tensor([[at, other]], dtype=torch.float64), pairs)
        return (rotate(q, angles[:, :1]) * rotate(k, angles[:, 1:])).sum()

    torch.testing.assert_close(product(day, day + later), product(0, later), atol=2e-5, rtol=1e-5)


@given(day=st.floats(-5000, 20_000), years=st.integers(1, 20), pairs=st.integers(1, 16))
def test_a_year_later_the_seasonal_pairs_stand_where_they_stood(day: float, years: int, pairs: int) -> None:
    angles = date_angles(torch.tensor([[day, day + years * YEAR_DAYS]], dtype=torch.float64), pairs)[0]
    seasonal = (pairs + 1) // 2
    apart = (angles[1, :seasonal] - angles[0, :seasonal]).abs()
    assert torch.minimum(apart, 2 * math.pi - apart).max() < 1e-5


def test_angles_are_those_of_the_closed_form() -> None:
    angles = date_angles(torch.tensor([[0.0, YEAR_DAYS / 4, 10.0]]), 4)[0]
    assert angles[0].tolist() == [0.0] * 4
    assert angles[1, :2].tolist() == pytest.approx([math.pi / 2, math.pi], abs=1e-5)
    assert angles[2, 2].item() == pytest.approx(2 * math.pi * 10 / 40, abs=1e-5)
    assert angles[2, 3].item() == pytest.approx(2 * math.pi * 10 / (60 * YEAR_DAYS), abs=1e-6)


def test_stopping_early_gives_a_block_in_between(core: Transformer) -> None:
    x = drawn(1, 5, SMALL.width)
    halfway = core.blocks(x, stop=2)
    torch.testing.assert_close(core.ln_f(core.h[2](halfway, None, None)), core(x))


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 30 is not a multiple of 4 heads"):
        TransformerConfig(1, 4, 30)


@pytest.mark.parametrize(("size", "count"), PUBLISHED_ASTROPT.items())
def test_published_galaxy_sizes_have_the_published_parameters(size: tuple[int, int, int], count: int) -> None:
    layers, heads, width = size
    with torch.device("meta"):
        embed = nn.Sequential(nn.Linear(768, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        head = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 768)
        )
        model = Autoregressive(TransformerConfig(layers, heads, width), embed=embed, head=head)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_first_weights_have_the_published_spread() -> None:
    core = Transformer(TransformerConfig(layers=8, heads=2, width=256))
    initialise(core, layers=8, generator=torch.Generator().manual_seed(0))
    assert core.h[0].attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert core.h[3].mlp.c_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert torch.equal(core.ln_f.weight, torch.ones(256))


def test_first_weights_depend_on_the_generator_alone() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        core = Transformer(TransformerConfig(layers=1, heads=2, width=8, bias=True))
        initialise(core, layers=1, generator=torch.Generator().manual_seed(0))
        states.append(core.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_mixed_precision_stays_near_full_precision(core: Transformer) -> None:
    x = drawn(2, STEPS, SMALL.width)
    angles = date_angles(random_days(2, STEPS), SMALL.head_width // 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = core(x, angles=angles)
    apart = (mixed.float() - core(x, angles=angles)).abs()
    assert 0 < apart.mean() < 0.02


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="no C++ compiler to compile with"
)
def test_compiled_it_gives_the_same_output_and_gradient(core: Transformer) -> None:
    x = drawn(2, STEPS, SMALL.width).requires_grad_()
    angles = date_angles(random_days(2, STEPS), SMALL.head_width // 2)
    compiled = torch.compile(core, fullgraph=True)
    results = []
    for run in (core, compiled):
        output = run(x, angles=angles)
        (gradient,) = torch.autograd.grad(output.square().sum(), x)
        results.append((output, gradient))
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)
