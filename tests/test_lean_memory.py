"""What a pix2pixHD step need not keep: gradients of all of G at once, and activations that can be made again."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pix2pixhd_case import LABELS, SIZE, Setting, draw_batch
from rich.console import Console
from tiny_hd_training import LOCAL, stop_in_hd_step, tiny_hd_config
from tiny_training import Stopped, differences, read_state
from torch import Tensor, nn

from benchmarks.plain.pix2pixhd import PlainVGG19
from torchp2p.models import (
    GlobalGenerator,
    InstanceEncoder,
    LabelMap,
    LocalEnhancer,
    MultiscaleDiscriminator,
    VGG19Features,
    recompute,
)
from torchp2p.models.chain import Chain
from torchp2p.models.layers import ResidualBlock
from torchp2p.train import CheckpointError, Lean, Pix2PixHDStep, train
from torchp2p.train.bf16_adam import BFloat16Adam
from torchp2p.train.pix2pixhd_recipe import build_hd_networks, build_hd_step

AFTERWARDS = Lean(step_in_backward=False)
STEPS = 3


def trained(setting: Setting, lean: Lean, **options: Any) -> tuple[list[dict[str, Tensor]], list[Any], list[Any]]:
    """Losses of a few steps, and what they leave of networks and optimisers."""
    torch.manual_seed(0)
    step = setting.step(lean=lean, **options)
    losses = [step(draw_batch()) for _ in range(STEPS)]
    if options.get("fix_global"):
        step.release_global()
        losses += [step(draw_batch()) for _ in range(STEPS)]
    states = [optimizer.state_dict()["state"] for optimizer in (step.optimizer_G, step.optimizer_D)]
    return losses, [net.state_dict() for net in setting.ours.values()], states


CASES: list[dict[str, Any]] = [
    {"netG": "global"},
    {"netG": "global", "norm": "batch", "features": True, "vgg": True},
    {"netG": "local2", "features": True},
]


# --- a step in the backward pass --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_stepping_in_the_backward_pass_gives_the_same_bits_as_afterwards(case: dict[str, Any]) -> None:
    assert differences(trained(Setting(**case), Lean()), trained(Setting(**case), AFTERWARDS)) == []


def test_the_frozen_phase_and_its_release_give_the_same_bits_too() -> None:
    found = (trained(Setting("local1", features=True), lean, fix_global=True) for lean in (Lean(), AFTERWARDS))
    assert differences(*found) == []


def test_a_gradient_of_G_is_gone_before_the_next_is_there() -> None:
    step, at_once = Setting(features=True).step(), []
    parameters = step.optimizer_G.param_groups[0]["params"]
    step.optimizer_G.register_step_pre_hook(
        lambda *_: at_once.append(sum(parameter.grad is not None for parameter in parameters))
    )
    step(draw_batch())
    assert set(at_once) == {1}
    assert len(at_once) > 10
    assert all(parameter.grad is None for parameter in (*parameters, *step.D.parameters()))


def test_a_backward_pass_outside_of_the_step_changes_no_weight() -> None:
    setting = Setting()
    setting.step()(draw_batch())
    G = setting.ours["G"]
    before = copy.deepcopy(G.state_dict())
    G(torch.randn(1, LABELS + 1, *SIZE, dtype=torch.float64)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())
    assert any(parameter.grad is not None for parameter in G.parameters())


def test_only_a_step_that_knows_network_and_optimiser_steps_in_the_backward_pass() -> None:
    setting = Setting()
    assert setting.step().steps_in_backward
    given = torch.optim.Adam(setting.ours["G"].parameters())
    assert not setting.step(optimizer_G=given).steps_in_backward
    assert not setting.step(lean=AFTERWARDS).steps_in_backward
    plain = Setting()
    plain.ours["G"] = plain.plain["G"]
    assert not plain.step().steps_in_backward
    half = Setting()
    for net in half.ours.values():
        net.float()
    assert not half.step(precision="float16").steps_in_backward


def test_nothing_that_D_kept_is_there_in_the_backward_pass_of_G() -> None:
    setting, features, alive = Setting(), [], []
    D: MultiscaleDiscriminator = setting.ours["D"]  # type: ignore[assignment]
    for layer in D.modules():
        if isinstance(layer, nn.Sequential):
            layer.register_forward_hook(lambda _layer, _inputs, output: features.append(weakref.ref(output)))
    step = setting.step()
    step.optimizer_G.register_step_pre_hook(lambda *_: alive.append(sum(each() is not None for each in features)))
    step(draw_batch())
    assert len(features) > 8
    assert set(alive) == {0}


def test_a_loss_that_is_not_finite_is_found_before_any_gradient() -> None:
    step = Setting(vgg=True).step()
    batch = draw_batch()
    batch["image"][0, 0, 0, 0] = float("inf")
    step(batch)
    assert step.skipped == 1
    assert all(parameter.grad is None for net in (step.G, step.D) for parameter in net.parameters())


# --- activations that are made again ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_steps_with_recompute_are_those_without_but_for_rounding(case: dict[str, Any]) -> None:
    found, expected = (trained(Setting(**case), Lean(recompute=on)) for on in (True, False))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def labels() -> LabelMap:
    return LabelMap(torch.arange(96 * 96).reshape(1, 1, 96, 96) % 4, None, 4)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> VGG19Features:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(PlainVGG19().state_dict(), path)
    return VGG19Features(path)


def network(name: str, vgg: VGG19Features) -> tuple[nn.Module, Callable[[], Any]]:
    """A network, and its inputs."""
    torch.manual_seed(1)
    image = torch.randn(1, 3, 64, 64)
    if name == "vgg":
        return vgg, lambda: image.clone().requires_grad_()
    if name == "encoder":
        encoder, ids = InstanceEncoder(3, 2, 4, 2), torch.zeros(1, 1, 64, 64, dtype=torch.int32)

        class Bound(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = encoder

            def forward(self, x: Tensor) -> Tensor:
                return self.encoder(x, ids)

        return Bound(), image.clone
    if name == "dropout":
        blocks = {f"{at}": ResidualBlock(4, norm="batch", use_dropout=True, bias=False) for at in range(3)}
        return Chain(blocks), lambda: torch.cat((image, image[:, :1]), 1)  # type: ignore[arg-type]
    kind, norm = name.split()
    if kind == "global":
        return GlobalGenerator(4, 3, 4, 2, 3, norm), labels
    return LocalEnhancer(4, 3, 4, 1, 1, 1, 2, norm), labels


NETWORKS = ["global instance", "global batch", "local instance", "local batch", "encoder", "dropout", "vgg"]


@pytest.mark.parametrize("name", NETWORKS)
def test_results_dropout_and_running_statistics_are_the_same_with_recompute_and_gradients_but_for_rounding(
    name: str, vgg: VGG19Features
) -> None:
    found = []
    for on in (False, True):
        net, inputs = network(name, vgg)
        x = inputs()
        for draw in range(2):
            torch.manual_seed(draw)
            with recompute(on):
                result = net(x)
            maps = result if isinstance(result, list) else [result]
            sum((each * torch.arange(each.numel()).reshape(each.shape).cos()).sum() for each in maps).backward()
        leaves = [each for each in (*net.parameters(), x) if isinstance(each, Tensor) and each.grad is not None]
        assert leaves
        found.append(([leaf.grad for leaf in leaves], maps, dict(net.named_buffers()), torch.rand(3)))
    (gradients, *rest), (expected, *others) = found
    assert differences(rest, others) == []
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-5 * other.abs().max().item())


def kept_bytes(function: Callable[[], Any]) -> int:
    """What ``function`` has allocated and not freed, its result included."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = function()
    del result
    return sum(event.self_cpu_memory_usage for event in profile.function_events)


@pytest.mark.parametrize(("name", "most"), [("global instance", 0.3), ("local instance", 0.4), ("vgg", 0.5)])
def test_with_recompute_much_less_is_kept_for_the_backward_pass(name: str, most: float, vgg: VGG19Features) -> None:
    net, inputs = network(name, vgg)
    x, kept = inputs(), {}
    for on in (False, True):
        with recompute(on):
            net(x)
            kept[on] = kept_bytes(lambda: net(x))
    assert 0 < kept[True] < most * kept[False]


def test_of_a_residual_block_its_input_alone_is_kept() -> None:
    chain = Chain({f"{at}": ResidualBlock(16, norm="instance", bias=True) for at in range(8)})
    x = torch.randn(1, 16, 64, 64)
    with recompute():
        chain(x)
        kept = kept_bytes(lambda: chain(x))
    assert 8 * x.nbytes <= kept < 8.3 * x.nbytes  # seven inputs and the result; the first was there


def test_without_gradients_nothing_is_run_twice() -> None:
    net, inputs = network("global instance", None)  # type: ignore[arg-type]
    calls: list[object] = []
    net.model.get_submodule("4").register_forward_hook(lambda *_: calls.append(0))
    with recompute(), torch.no_grad():
        net(inputs())
    assert len(calls) == 1


def test_the_context_ends_where_it_ends() -> None:
    net, inputs = network("global instance", None)  # type: ignore[arg-type]
    x = inputs()
    net(x)
    before = kept_bytes(lambda: net(x))
    with pytest.raises(KeyError), recompute():
        raise KeyError
    assert kept_bytes(lambda: net(x)) == before


# --- in the trainer ---------------------------------------------------------------------------------------------


def hd_step(folder: Path, **options: Any) -> Pix2PixHDStep:
    config = tiny_hd_config(folder, **options)
    return build_hd_step(config, build_hd_networks(config))


@pytest.mark.parametrize("on", [False, True])
def test_the_options_of_a_training_reach_its_step(tmp_path: Path, on: bool) -> None:
    step = hd_step(tmp_path, recompute=on, bf16_state=on)
    assert (step.lean.recompute, step.lean.bf16_state) == (on, on)
    for optimizer in (step.optimizer_G, step.optimizer_D):
        assert isinstance(optimizer, BFloat16Adam if on else torch.optim.Adam)


def test_the_optimiser_after_the_release_of_the_global_generator_is_of_the_same_kind(tmp_path: Path) -> None:
    step = hd_step(tmp_path, **LOCAL, bf16_state=True)
    step.release_global()
    assert isinstance(step.optimizer_G, BFloat16Adam)
    assert step.steps_in_backward


def run(folder: Path, *, resume: bool = False, **options: Any) -> Path:
    config = tiny_hd_config(folder, **{**LOCAL, "niter": 2, "niter_decay": 1, "no_html": True, **options})
    return train(config, resume=resume, console=Console(quiet=True)).folder


def test_a_training_with_both_options_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run(tmp_path / "straight", bf16_state=True, recompute=True)
    with monkeypatch.context() as patched:
        stop_in_hd_step(10, patched)
        with pytest.raises(Stopped):
            run(tmp_path / "died", bf16_state=True, recompute=True, save_latest_freq=9)
    died = run(tmp_path / "died", resume=True, bf16_state=True, recompute=True)
    assert differences(read_state(died), read_state(straight)) == []
    moments = [value["exp_avg_sq"] for value in read_state(died)["optimizer_G"]["state"].values()]
    assert {each.dtype for each in moments} == {torch.bfloat16}


def test_a_training_may_recompute_from_now_on_but_not_round_its_state(tmp_path: Path) -> None:
    run(tmp_path, max_dataset_size=1)
    with pytest.raises(CheckpointError, match="bf16_state: False, not True"):
        run(tmp_path, resume=True, max_dataset_size=1, bf16_state=True)
    run(tmp_path, resume=True, max_dataset_size=1, recompute=True)
