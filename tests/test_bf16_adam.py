"""Adam with its state in bfloat16: near the one in float32, deterministic, and as good in training."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchp2p.train import bf16_adam
from torchp2p.train.bf16_adam import BFloat16Adam

BETAS = (0.5, 0.999)


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def follow(optimizer: torch.optim.Optimizer, gradients: list[Tensor]) -> None:
    """A step for each gradient, of the one parameter that there is."""
    (weight,) = optimizer.param_groups[0]["params"]
    for gradient in gradients:
        weight.grad = gradient.to(weight.dtype)
        optimizer.step()


def noise(count: int, *shape: int, seed: int = 1) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) for _ in range(count)]


# --- near float32 -----------------------------------------------------------------------------------------------


def test_the_first_step_is_that_of_adam() -> None:
    ours, theirs = parameter(3, 5), parameter(3, 5)
    follow(BFloat16Adam([ours], 2e-4, BETAS), noise(1, 3, 5))
    follow(torch.optim.Adam([theirs], 2e-4, BETAS), noise(1, 3, 5))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_the_mean_of_squares_follows_gradients_that_grow_and_shrink() -> None:
    sizes = [1.0] * 1000 + [3.0] * 1000 + [0.2] * 1500
    scale = torch.logspace(-6, 2, 1024)
    gradients = [size * scale * each for size, each in zip(sizes, noise(len(sizes), 1024), strict=True)]
    ours, exact = BFloat16Adam([parameter(1024)], 2e-4, BETAS), torch.optim.Adam([parameter(1024)], 2e-4, BETAS)
    for optimizer in (ours, exact):
        follow(optimizer, gradients)
    (found,), (expected,) = (list(optimizer.state.values()) for optimizer in (ours, exact))
    error = found["exp_avg_sq"].double() / expected["exp_avg_sq"].double() - 1
    assert error.mean().abs() < 0.01
    assert error.std() < 0.035
    assert error.abs().max() < 0.15


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.77])
def test_over_many_steps_a_value_is_rounded_up_as_often_as_its_fraction_says(share: float) -> None:
    value = 1 + share / 128  # bfloat16 has 1 and 1 + 1/128
    rounded = [
        bf16_adam._rounded(torch.tensor([value]), step * bf16_adam._GOLDEN % 65536).item() for step in range(1000)
    ]
    assert set(rounded) <= {1.0, 1 + 1 / 128}
    assert sum(rounded) / 1000 == pytest.approx(value, abs=0.005 / 128)


def test_a_value_that_is_a_bfloat16_stays_as_it_is() -> None:
    values = torch.tensor([0.0, 1e-30, 0.5, 3e38, float("inf")]).bfloat16().float()
    assert torch.equal(bf16_adam._rounded(values.clone(), 65535), values)


def fitted(kind: Any) -> float:
    """The error of a small network after some steps on noisy batches."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    target = nn.Linear(8, 1)
    optimizer = kind(net.parameters(), 2e-3, BETAS)
    for _ in range(1500):
        x = torch.randn(16, 8)
        optimizer.zero_grad()
        (net(x) - target(x).sin()).square().mean().backward()
        optimizer.step()
    x = torch.randn(4096, 8)
    with torch.no_grad():
        return float((net(x) - target(x).sin()).square().mean())


def test_a_network_learns_as_well_as_with_adam() -> None:
    error = fitted(torch.optim.Adam)
    assert error < 0.02
    assert fitted(BFloat16Adam) < 1.2 * error


# --- state ------------------------------------------------------------------------------------------------------


def test_the_state_takes_half_the_memory() -> None:
    weight = parameter(64, 64)
    optimizer = BFloat16Adam([weight])
    follow(optimizer, noise(1, 64, 64))
    moments = [value for value in optimizer.state[weight].values() if value.numel() > 1]
    assert sum(value.nbytes for value in moments) == weight.nbytes


def test_a_saved_state_continues_bit_for_bit() -> None:
    gradients = noise(20, 7, 9)
    straight = BFloat16Adam([parameter(7, 9)], 1e-3, BETAS)
    follow(straight, gradients)
    first = BFloat16Adam([parameter(7, 9)], 1e-3, BETAS)
    follow(first, gradients[:10])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    weight = nn.Parameter(first.param_groups[0]["params"][0].detach().clone())
    second = BFloat16Adam([weight])
    second.load_state_dict(torch.load(file))
    follow(second, gradients[10:])
    assert torch.equal(weight, straight.param_groups[0]["params"][0])
    assert str(second.state_dict()) == str(straight.state_dict())


def test_the_state_of_adam_is_taken_up() -> None:
    weight = parameter(7, 9)
    theirs, ours = torch.optim.Adam([weight], 1e-3, BETAS), BFloat16Adam([weight])
    follow(theirs, noise(3, 7, 9))
    ours.load_state_dict(theirs.state_dict())
    for name, value in theirs.state[weight].items():
        torch.testing.assert_close(ours.state[weight][name].float(), value, rtol=2**-8, atol=0)
    follow(ours, noise(1, 7, 9))
    assert ours.state[weight]["step"] == 4
    assert ours.param_groups[0]["betas"] == BETAS


def test_two_runs_are_alike_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for chunk in (bf16_adam.CHUNK, bf16_adam.CHUNK, 1, 50):
        monkeypatch.setattr(bf16_adam, "CHUNK", chunk)
        weights.append(parameter(6, 4, 3, 3))
        follow(BFloat16Adam([weights[-1]], 1e-3, BETAS), noise(5, 6, 4, 3, 3))
    assert torch.equal(weights[0], weights[1])
    for other in weights[2:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-6, atol=1e-7)


# --- parameters and gradients of all kinds ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5, 0, 2)])
def test_parameters_of_any_shape_are_stepped(shape: tuple[int, ...]) -> None:
    ours, theirs = parameter(*shape), parameter(*shape)
    follow(BFloat16Adam([ours], 1e-3, BETAS), noise(1, *shape))
    follow(torch.optim.Adam([theirs], 1e-3, BETAS), noise(1, *shape))
    torch.testing.assert_close(ours, theirs)


def test_strides_of_parameter_and_gradient_do_not_matter() -> None:
    dense, strided = parameter(6, 4, 3, 3), parameter(6, 4, 3, 3)
    strided.data = strided.data.contiguous(memory_format=torch.channels_last)
    gradients = noise(3, 6, 4, 3, 3)
    follow(BFloat16Adam([dense], 1e-3, BETAS), gradients)
    follow(
        BFloat16Adam([strided], 1e-3, BETAS), [each.transpose(0, 1).contiguous().transpose(0, 1) for each in gradients]
    )
    torch.testing.assert_close(strided, dense)


def test_a_parameter_without_gradient_stays_as_it_is() -> None:
    moved, still = parameter(3), parameter(3)
    optimizer = BFloat16Adam([moved, still])
    moved.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(still, parameter(3))
    assert still not in optimizer.state


def test_a_gradient_that_is_not_finite_is_not_hidden() -> None:
    weight = parameter(3)
    follow(BFloat16Adam([weight]), [torch.tensor([1.0, float("nan"), 2.0])])
    assert weight.isnan().tolist() == [False, True, False]


def test_a_closure_finds_the_gradients() -> None:
    weight = parameter(3)
    before = copy.deepcopy(weight)
    optimizer = BFloat16Adam([weight])

    def closure() -> Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == before.square().sum()
    assert not torch.equal(weight, before)


def test_parameters_that_are_not_float32_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^parameters must be float32, got torch\.float64$"):
        BFloat16Adam([nn.Parameter(torch.zeros(2, dtype=torch.float64))])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": -1e-3}, "lr must be a number that is not negative, got -0.001"),
        ({"lr": float("nan")}, "lr must be a number that is not negative, got nan"),
        ({"lr": "fast"}, "lr must be a number that is not negative, got 'fast'"),
        ({"eps": -1e-8}, "eps must be a number that is not negative, got -1e-08"),
        ({"betas": (0.5, 1.0)}, r"betas must be two numbers from 0 to below 1, got \(0.5, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, r"betas must be two numbers from 0 to below 1, got \(-0.1, 0.9\)"),
        ({"betas": 0.5}, "betas must be two numbers from 0 to below 1, got 0.5"),
        ({"betas": (0.5, 0.9, 0.9)}, r"betas must be two numbers .* got \(0.5, 0.9, 0.9\)"),
    ],
)
def test_rates_that_cannot_be_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        BFloat16Adam([parameter(3)], **options)


def test_a_group_that_cannot_be_is_refused_and_not_kept() -> None:
    optimizer = BFloat16Adam([parameter(3)])
    for group, sentence in (
        ({"params": [parameter(2)], "lr": -1}, "lr must be a number that is not negative, got -1"),
        ({"params": [nn.Parameter(torch.zeros(2, dtype=torch.cfloat))]}, "parameters must be float32, got"),
    ):
        with pytest.raises((TypeError, ValueError), match=sentence):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


def test_without_parameters_there_is_nothing_to_step() -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        BFloat16Adam([])


def test_a_sparse_gradient_is_refused() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(TypeError, match=r"^gradients must be dense, got torch\.sparse_coo$"):
        BFloat16Adam(table.parameters()).step()
