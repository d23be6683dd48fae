"""The published Pix2Prof: its size, the numbers of the original, its rules, and both ways to run it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.pix2prof import (
    FIRST_VALUE,
    LEVEL_STEPS,
    LONGEST,
    SHORTEST,
    Pix2Prof,
    Pix2ProfConfig,
    ProfiledImages,
    as_published,
    has_ended,
    scale_images,
    summed_squares,
)
from models.published import LayoutMismatch, read_published, write_published

SMALL = Pix2ProfConfig(width=4)
RULES = {
    "0.05*z": lambda z, _: 0.05 * z,
    "0.05*z +1": lambda z, _: 0.05 * z + 1,
    "1+0.1*z": lambda z, _: 1 + 0.1 * z,
    "1+0.1*abs(z)": lambda z, _: 1 + 0.1 * np.abs(z),
    "z*fan_in**-0.5": lambda z, fan_in: z * fan_in**-0.5,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(*, level: bool = False) -> Pix2Prof:
    """Return a small model in eval mode; one that is level says the same at each step."""
    model = Pix2Prof(SMALL, generator=seeded(3)).eval().requires_grad_(False)
    if level:
        model.decoder.fc.weight.zero_()
    return model


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def described_weights(folder: Path, seed: int) -> dict[str, dict[str, Tensor]]:
    """Return the weights that the original's numbers were made with, as their file would hold them."""
    draw = np.random.RandomState(seed)
    found: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for entry in json.loads((folder / "weights.json").read_text()):
        if entry["rule"] == "const100":
            tensor = torch.tensor(100)
        else:
            z = draw.standard_normal(entry["shape"]).astype(np.float32)
            tensor = torch.from_numpy(RULES[entry["rule"]](z, math.prod(entry["shape"][1:])).astype(np.float32))
        found[entry["part"]][entry["key"]] = tensor
    return found


@pytest.fixture(scope="module")
def known(shared_data: Path) -> dict[str, Tensor]:
    content = np.load(shared_data / "checkpoints" / "pix2prof" / "io.npz")
    return {name: torch.from_numpy(content[name]) for name in content}


@pytest.fixture(scope="module")
def original(shared_data: Path, known: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Pix2Prof:
    """Return the model with the described weights, as read from a file in the published layout."""
    path = tmp_path_factory.mktemp("pix2prof") / "pix2prof.pth"
    weights = described_weights(shared_data / "checkpoints" / "pix2prof", int(known["seed"]))
    content = {**weights, "encoder_op": {}, "decoder_op": {}, "epoch": 160, "logdir": "logs"}
    torch.save(content, path, _use_new_zipfile_serialization=False)  # as torch wrote before 1.6, and faster
    found = read_published(path)
    assert (found.layout, found.history) == ("pix2prof", {"epoch": 160, "logdir": "logs"})
    assert isinstance(found.model, Pix2Prof)
    return found.model.eval().requires_grad_(False)


def apart(found: Tensor, known: Tensor) -> float:
    assert found.shape == known.shape
    return float((found - known).abs().max())


def test_the_encoding_is_that_of_the_original(original: Pix2Prof, known: dict[str, Tensor]) -> None:
    assert apart(original.encoder(known["inputs"]), known["encoding"]) <= 2e-5


def test_profiles_are_those_of_the_original(original: Pix2Prof, known: dict[str, Tensor]) -> None:
    made = original.roll_out(known["inputs"], longest=known["profiles"].shape[1])
    assert apart(torch.stack(made), known["profiles"]) <= 1e-4


def test_it_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = Pix2Prof(Pix2ProfConfig())
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 11_430_336
    assert sum(parameter.numel() for parameter in model.decoder.parameters()) == 3_943_425
    assert sum(parameter.numel() for parameter in model.parameters()) == 15_373_761


def test_a_step_of_the_decoder_is_one_of_torchs_own() -> None:
    """The layers are stepped by hand so that dropout can be seeded; torch's GRU is the reference."""
    decoder = small().decoder
    encoding, values = drawn(3, 32), drawn(3, 5, seed=2)
    state, made = decoder.begin(encoding), []
    for value in values.unbind(dim=1):
        answer, state = decoder.step(value, state, generator=None)
        made.append(answer)
    hidden, _ = decoder.gru(values.T[..., None], encoding.expand(3, -1, -1).contiguous())
    torch.testing.assert_close(torch.stack(made), decoder.fc(hidden.relu()).relu()[..., 0])


def test_feeding_a_roll_out_back_as_truth_gives_it_again() -> None:
    model, images = small(), drawn(2, 1, 16, 16)
    made = torch.stack(model.roll_out(images, longest=12))
    torch.testing.assert_close(model(images, made), made)
    nothing = torch.zeros_like(made)
    torch.testing.assert_close(model(images, nothing, teacher=torch.tensor([False, False])), made)


def test_a_step_sees_only_the_values_before_it() -> None:
    model, images, mu = small(), drawn(1, 1, 16, 16), 20 + drawn(1, 8)
    other = mu.clone()
    other[:, 5:] += 1
    difference = (model(images, mu) - model(images, other))[0].abs()
    assert (difference[:6] == 0).all()
    assert (difference[6:] > 0).all()
    first, _ = model.decoder.step(
        torch.tensor([FIRST_VALUE]), model.decoder.begin(model.encoder(images)), generator=None
    )
    torch.testing.assert_close(model(images, mu)[:, 0], first)


def test_profiles_of_a_batch_are_those_of_its_images() -> None:
    model, images = small(), drawn(3, 1, 16, 16)
    together = model.roll_out(images)
    for image, profile in zip(images, together, strict=True):
        (alone,) = model.roll_out(image[None])
        torch.testing.assert_close(alone, profile)


def test_a_level_profile_ends_at_its_101st_value() -> None:
    (profile,) = small(level=True).roll_out(drawn(1, 1, 16, 16))
    assert profile.tolist() == [20.0] * (SHORTEST + 1)


def test_one_that_never_becomes_level_ends_at_the_longest() -> None:
    """Gates held open make each state a tanh of its input; then the first layer turns 0 into +1 and 5 into -1."""
    model, size = small(), SMALL.encoding
    for parameter in model.decoder.parameters():
        parameter.zero_()
    for layer, gain in enumerate((-2.0, 5.0, 5.0)):
        getattr(model.decoder.gru, f"bias_ih_l{layer}")[size : 2 * size] = -50.0
        getattr(model.decoder.gru, f"weight_ih_l{layer}")[2 * size, 0] = gain
    model.decoder.gru.bias_ih_l0[2 * size] = 5.0
    model.decoder.fc.weight[0, 0] = 5.0
    (profile,) = model.roll_out(drawn(1, 1, 16, 16))
    torch.testing.assert_close(profile, torch.tensor([5.0, 0.0]).repeat(LONGEST // 2), atol=0.01, rtol=0)
    (cut,) = model.roll_out(drawn(1, 1, 16, 16), longest=7)
    assert len(cut) == 7


@pytest.mark.parametrize(("spread", "ends"), [(0.0099, True), (0.0101, False)])
def test_the_end_is_told_by_the_scatter_of_the_last_values(spread: float, ends: bool) -> None:
    """Values that swing by +-spread about a level have that standard deviation; what came before does not count."""
    swing = spread * math.sqrt(LEVEL_STEPS / (LEVEL_STEPS - 1)) * torch.tensor([1.0, -1.0]).repeat(49)
    values = torch.cat([torch.tensor([5.0, 9.0]), torch.tensor([20.0]), 20 + swing])[None].double()
    assert values.shape[1] == SHORTEST + 1
    assert has_ended(values).tolist() == [ends]
    assert has_ended(values[:, 1:]).tolist() == [False]


def test_images_are_clipped_and_scaled() -> None:
    flux = torch.arange(1001.0).reshape(1, 7, 143)
    scaled = scale_images(torch.cat([flux, flux + 100]))
    assert scaled.shape == (2, 7, 143)
    assert float(scaled[0, 0, 2]) == 0.0
    torch.testing.assert_close(scaled[0].max(), torch.tensor((999.0 - 2) / 28))
    torch.testing.assert_close(scaled[1] - scaled[0], torch.full((7, 143), 100 / 28))


def test_the_loss_is_summed_over_valid_steps() -> None:
    predicted, mu = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), torch.zeros(2, 3)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    assert float(summed_squares(predicted, mu, valid)) == ((1 + 4) + 1) / 2


def test_the_loss_feeds_truth_to_some_and_falls_in_training() -> None:
    model = Pix2Prof(SMALL, generator=seeded(3))
    images = drawn(6, 1, 16, 16)
    mu = 20 + torch.linspace(0, 4, 10) + images.mean(dim=(1, 2, 3))[:, None]
    valid = torch.arange(10) < torch.tensor([10, 10, 10, 8, 8, 8])[:, None]
    batch = ProfiledImages(images, mu.masked_fill(~valid, float("nan")), valid)
    optimiser, generator = torch.optim.Adam(model.parameters(), 3e-3), seeded()
    losses = []
    for _ in range(25):
        loss = model.loss(batch, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < losses[0] / 2


def test_as_published_is_seeded_uses_the_image_alone_and_changes_nothing() -> None:
    model, images = small(), 5 + 3 * drawn(1, 1, 16, 16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    usual = torch.stack(model.roll_out(images, longest=20))
    with as_published(model):
        first, again, other = (
            torch.stack(model.roll_out(images, longest=20, generator=seeded(seed))) for seed in (1, 1, 2)
        )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.allclose(first, usual)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.stack(model.roll_out(images, longest=20)), usual)


def test_batch_statistics_take_the_scale_of_an_image_away() -> None:
    """Without an offset, the first norm gives the same for an image of twice the contrast; the gathered ones do not."""
    model, images = small(), drawn(1, 1, 16, 16)
    with as_published(model):
        torch.testing.assert_close(model.encoder(2 * images), model.encoder(images), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.encoder(2 * images), model.encoder(images), atol=1e-2)


@pytest.mark.parametrize("values", [{"width": 0}, {"layers": 0}, {"dropout": 1.0}])
def test_sizes_that_make_no_model_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Pix2ProfConfig(**values)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a published file of a small model."""
    write_published(small(), tmp_path / "p.pth", "pix2prof", history={"epoch": 160, "logdir": "logs"})
    return tmp_path / "p.pth"


def test_what_was_written_is_read_back_the_same(path: Path) -> None:
    found, own = read_published(path), small().state_dict()
    assert (found.layout, found.history) == ("pix2prof", {"epoch": 160, "logdir": "logs"})
    assert isinstance(found.model, Pix2Prof)
    assert found.model.config == SMALL
    assert found.model.state_dict().keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.model.state_dict().items())


def test_the_file_has_the_published_keys_and_names(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    assert set(content) == {"encoder", "decoder", "encoder_op", "decoder_op", "epoch", "logdir"}
    encoder, decoder = content["encoder"], content["decoder"]
    assert tuple(encoder["conv1.weight"].shape) == (4, 1, 3, 3)
    assert tuple(encoder["layer2.0.shortcut.0.weight"].shape) == (8, 4, 1, 1)
    assert "layer1.0.shortcut.0.weight" not in encoder
    assert "layer4.0.shortcut.1.running_var" in encoder
    assert int(encoder["bn1.num_batches_tracked"]) == 0
    assert len(encoder) == 122
    assert {name: tuple(tensor.shape) for name, tensor in decoder.items() if not name.endswith(("l1", "l2"))} == {
        "gru.weight_ih_l0": (96, 1),
        "gru.weight_hh_l0": (96, 32),
        "gru.bias_ih_l0": (96,),
        "gru.bias_hh_l0": (96,),
        "fc.weight": (1, 32),
        "fc.bias": (1,),
    }
    for part in ("encoder", "decoder"):
        torch.optim.Adam(getattr(small(), part).parameters()).load_state_dict(content[f"{part}_op"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_wrappers_are_stripped(path: Path, prefix: str) -> None:
    content = torch.load(path, weights_only=True)
    for part in ("encoder", "decoder"):
        content[part] = {prefix + name: tensor for name, tensor in content[part].items()}
    torch.save(content, path)
    assert torch.equal(read_published(path).model.state_dict()["decoder.fc.weight"], small().decoder.fc.weight)


def test_what_is_unknown_missing_or_of_another_shape_is_named_at_once(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["encoder"]["attention.weight"] = torch.zeros(1)
    torch.save(content, path)
    with pytest.raises(LayoutMismatch, match=r"p\.pth is not Pix2Prof.*unknown weight encoder\.attention\.weight"):
        read_published(path)
    del content["encoder"]["attention.weight"], content["encoder"]["bn1.weight"]
    content["decoder"]["fc.weight"] = torch.zeros(2, 32)
    torch.save(content, path)
    with pytest.raises(
        LayoutMismatch, match=r"missing weight encoder\.bn1\.weight; decoder\.fc\.weight has shape \(2, 32\)"
    ):
        read_published(path)
    torch.save({**content, "decoder": torch.zeros(1)}, path)
    with pytest.raises(LayoutMismatch, match="no dictionary of weights under 'decoder'"):
        read_published(path)


def test_a_file_of_no_known_layout_is_refused_with_its_keys(path: Path) -> None:
    torch.save({"generator": {}, "epoch": 3}, path)
    with pytest.raises(LayoutMismatch, match=r"of no known layout; it holds epoch, generator .*pix2prof has encoder"):
        read_published(path)


def test_bands_are_no_setting_of_it(path: Path) -> None:
    with pytest.raises(LayoutMismatch, match="bands"):
        read_published(path, more={"bands": ("r",)})
