"""Next-step models: the loss against loops, roll-out with and without a cache, sequences of different length."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.autoregressive import Autoregressive, Chance, huber
from models.tokens import Tokens, compact, pad
from models.transformer import TransformerConfig

BLOCK, CHANNELS, WIDTH = 14, 3, 24


def make_model(block_size: int | None) -> Autoregressive:
    """Return a small model with weights large enough that its context matters."""
    embed = nn.Sequential(nn.Linear(CHANNELS, WIDTH), nn.Tanh())
    core = TransformerConfig(layers=2, heads=3, width=WIDTH)
    model = Autoregressive(core, embed=embed, head=nn.Linear(WIDTH, CHANNELS), block_size=block_size)
    draw = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, 0, 0.25, generator=draw)
        elif name.endswith("bias"):
            # by the same generator: nothing may depend on what other tests drew before
            nn.init.uniform_(parameter, -0.25, 0.25, generator=draw)
    return model.eval().requires_grad_(False)


MODELS = {"learned": make_model(BLOCK), "dates": make_model(None)}
KINDS = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def drawn(count: int, steps: int, seed: int = 0) -> Tokens:
    """Return sequences of looks one to nine days apart."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn((count, steps, CHANNELS), generator=draw)
    day = 5000 + torch.randint(1, 10, (count, steps), generator=draw).cumsum(dim=1).float()
    return Tokens(values, torch.stack([day, day], dim=-1), torch.ones((count, steps), dtype=torch.bool))


def roll_out_slowly(model: Autoregressive, context: Tokens, position: Tensor) -> Tensor:
    """Return a roll-out of one sequence, the whole model run again on the last steps for every new one."""
    tokens, made = context, []
    for step in range(position.shape[1]):
        window = tokens.steps(-model.block_size, None) if model.block_size else tokens
        made.append(model(window)[:, -1:])
        tokens = Tokens(
            torch.cat([tokens.values, made[-1]], dim=1),
            torch.cat([tokens.position, position[:, step : step + 1]], dim=1),
            torch.cat([tokens.valid, tokens.valid[:, :1]], dim=1),
        )
    return torch.cat(made, dim=1)


@KINDS
def test_the_loss_is_the_mean_huber_error_of_the_next_step(model: Autoregressive) -> None:
    batch = drawn(2, 6)
    valid = batch.valid.clone()
    valid[0, 4:] = False
    values = batch.values.clone()
    values[1, 3, 1] = torch.nan
    predictions = model(Tokens(values, batch.position, valid))
    errors = []
    for row in range(2):
        for step in range(5):
            for channel in range(CHANNELS):
                error = float((predictions[row, step, channel] - values[row, step + 1, channel]).abs())
                if valid[row, step + 1] and error == error:
                    errors.append(error**2 / 2 if error < 1 else error - 0.5)
    loss = model.loss(Tokens(values, batch.position, valid), generator=torch.Generator())
    assert len(errors) == (3 + 5) * CHANNELS - 1
    assert loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


@KINDS
def test_looks_that_are_not_valid_do_not_touch_the_loss(model: Autoregressive) -> None:
    batch = drawn(3, 9)
    valid = torch.rand((3, 9), generator=torch.Generator().manual_seed(2)) < 0.6
    hazy = Tokens(batch.values, batch.position, valid)
    other = Tokens(batch.values.masked_fill(~valid[..., None], 1e3), batch.position, valid)
    first, again = (model.loss(tokens, generator=torch.Generator()) for tokens in (hazy, other))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, model.loss(compact(hazy), generator=torch.Generator()))


def test_nothing_to_predict_is_no_loss_and_no_nan() -> None:
    batch = drawn(2, 4)
    empty = Tokens(batch.values, batch.position, torch.zeros_like(batch.valid))
    assert MODELS["dates"].loss(empty, generator=torch.Generator()).item() == 0.0


def test_a_missing_channel_gives_no_gradient() -> None:
    predictions = torch.zeros((1, 2, 2), requires_grad=True)
    targets = torch.tensor([[[5.0, torch.nan], [0.5, 0.25]]])
    huber(predictions, targets, torch.tensor([[True, True]])).backward()
    assert predictions.grad is not None
    torch.testing.assert_close(predictions.grad, torch.tensor([[[-1.0, 0.0], [-0.5, -0.25]]]) / 3)


@KINDS
@given(
    lengths=st.lists(st.integers(1, BLOCK + 4), min_size=1, max_size=4), more=st.integers(1, 8), seed=st.integers(0, 99)
)
@settings(max_examples=15, deadline=None)
def test_roll_out_of_a_batch_is_that_of_each_sequence_with_and_without_a_cache(
    model: Autoregressive, lengths: list[int], more: int, seed: int
) -> None:
    """Within the block and past it, for one length and several."""
    parts = [drawn(1, length + more, seed=seed + number) for number, length in enumerate(lengths)]
    contexts = [part.steps(None, -more) for part in parts]
    coming = torch.cat([part.position[:, -more:] for part in parts])
    alone = torch.cat(
        [roll_out_slowly(model, one, part.position[:, -more:]) for one, part in zip(contexts, parts, strict=True)]
    )
    for cached in (True, False):
        made = model.generate(pad(contexts), coming, cached=cached)
        assert made.shape == (len(lengths), more, CHANNELS)
        assert (made - alone).abs().max() <= 1e-5


@KINDS
def test_looks_that_are_not_valid_do_not_touch_the_roll_out(model: Autoregressive) -> None:
    batch = drawn(2, 12)
    valid = torch.rand((2, 9), generator=torch.Generator().manual_seed(4)) < 0.6
    context = Tokens(batch.values[:, :9], batch.position[:, :9], valid)
    other = Tokens(context.values.masked_fill(~valid[..., None], torch.nan), context.position, valid)
    coming = batch.position[:, 9:]
    assert torch.equal(model.generate(context, coming), model.generate(other, coming))


def test_dates_have_no_limit_and_depend_on_differences_alone() -> None:
    model, batch = MODELS["dates"], drawn(1, 60)
    context, coming = batch.steps(None, 40), batch.position[:, 40:]
    first = model.generate(context, coming)
    moved = Tokens(context.values, context.position + 731, context.valid)
    torch.testing.assert_close(model.generate(moved, coming + 731), first, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.generate(context, coming + torch.arange(20)[:, None]), first, atol=1e-3)


def test_more_steps_than_learned_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=f"15 steps; the learned positions end at {BLOCK}"):
        MODELS["learned"](drawn(1, BLOCK + 1))


def test_a_sequence_without_looks_cannot_be_continued() -> None:
    context = drawn(2, 4)
    context.valid[1] = False
    with pytest.raises(ValueError, match="no valid step"):
        MODELS["dates"].generate(context, context.position)


def test_no_steps_to_come_give_none() -> None:
    context = drawn(2, 4)
    assert MODELS["learned"].generate(context, context.position[:, :0]).shape == (2, 0, CHANNELS)


def test_noise_has_the_temperature_asked_for_and_is_seeded() -> None:
    model, context = MODELS["learned"], drawn(4000, 3)
    coming = context.position[:, -1:] + 5
    calm = model.generate(context, coming)
    warm, again = (
        model.generate(context, coming, chance=Chance(0.3, torch.Generator().manual_seed(1))) for _ in range(2)
    )
    assert torch.equal(warm, again)
    assert (warm - calm).std().item() == pytest.approx(0.3, rel=0.03)
    with pytest.raises(ValueError, match="needs a generator"):
        Chance(0.3)


@KINDS
def test_the_embedding_is_the_mean_over_valid_steps_of_the_last_block(model: Autoregressive) -> None:
    parts = [drawn(1, 5), drawn(1, 9, seed=1)]
    together = model.embedding(pad(parts))
    for number, part in enumerate(parts):
        torch.testing.assert_close(together[number], model.hidden(part)[0].mean(dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.head(model.core.ln_f(model.hidden(parts[0]))), model(parts[0]))
    assert not torch.allclose(model.hidden(parts[0], stop=1), model.hidden(parts[0]))


def test_it_learns_the_best_forecast_of_an_autoregression() -> None:
    """AR(1) with coefficient 0.8: the best forecast is 0.8 x, and its mean Huber loss is that of the noise."""
    draw = torch.Generator().manual_seed(7)
    noise = torch.randn((192, 25, 1), generator=draw) * 0.5
    steps = [noise[:, 0] / 0.6]
    for number in range(1, 25):
        steps.append(0.8 * steps[-1] + noise[:, number])
    values = torch.stack(steps, dim=1)
    day = torch.arange(25.0).expand(192, -1)
    series = Tokens(values, torch.stack([day, day], dim=-1), torch.ones((192, 25), dtype=torch.bool))
    model = Autoregressive(
        TransformerConfig(layers=1, heads=2, width=16), embed=nn.Linear(1, 16), head=nn.Linear(16, 1), block_size=24
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.1, generator=draw) if parameter.dim() == 2 else None
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        model.loss(series, generator=draw).backward()
        optimiser.step()
    with torch.inference_mode():
        loss = model.loss(series, generator=draw).item()
        slope = regress(model(series.steps(None, -1))[:, 8:].flatten(), values[:, 8:-1].flatten())
    best = huber(0.8 * values[:, :-1], values[:, 1:], series.valid[:, 1:]).item()
    assert loss == pytest.approx(best, rel=0.03)
    assert slope == pytest.approx(0.8, abs=0.05)


def regress(y: Tensor, x: Tensor) -> float:
    """Return the slope of y on x."""
    return float(((x - x.mean()) * (y - y.mean())).mean() / x.var())
