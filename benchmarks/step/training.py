"""A training that can be stepped, as one provider does it, on random data; nothing is read but VGG's weights."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import torchp2p
from torchp2p.data.transforms import Size
from torchp2p.train import HDTrainConfig, Pix2PixHDStep, Pix2PixStep, RunConfig, TrainConfig, preset
from torchp2p.train.graphed import GraphedStep
from torchp2p.train.pix2pix_recipe import build_step
from torchp2p.train.pix2pixhd_recipe import build_hd_networks, build_hd_step
from torchp2p.train.presets import config_class
from torchp2p.train.probe import random_batch

from ..plain.pix2pix import PlainPatchDiscriminator, PlainUnet
from ..plain.pix2pixhd import PlainEncoder, PlainGlobal, PlainLocal, PlainMultiscale, PlainVGG19
from ..plain.steps import plain_hd_step, plain_step
from .providers import Provider

Batch = dict[str, Tensor]
Losses = Mapping[str, Tensor]

LEVELS = {"unet_128": 7, "unet_256": 8}


@dataclass(frozen=True)
class Case:
    """What is trained.

    Args:
        preset: of the trainer.
        size: (height, width) of the images.
        threads: of every provider.
        device: ``cpu`` or ``cuda``.
        batch_size: images in a step.
        vgg: file of torchvision's weights; None leaves the VGG loss out.
        changes: fields in which the configuration differs from the preset.
    """

    preset: str
    size: Size
    threads: int
    device: str = "cpu"
    batch_size: int = 1
    vgg: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def config(self, precision: str) -> RunConfig:
        """Of the whole generator in training, whatever the preset's first epochs leave out."""
        values = {"device": self.device, "batch_size": self.batch_size, "precision": precision, **self.changes}
        if config_class(self.preset) is HDTrainConfig:
            values |= {"no_vgg_loss": self.vgg is None, "vgg_weights": self.vgg}
            values |= {"niter_fix_global": 0, "coarse_to_fine": False}
        return preset(self.preset, **values)


@dataclass(frozen=True)
class Training:
    """``step()`` takes a step and returns its losses; the networks and optimisers are those that it changes."""

    step: Callable[[], Losses]
    G: nn.Module
    optimizers: tuple[torch.optim.Optimizer, ...]

    @property
    def state_bytes(self) -> int:
        """Of the optimisers."""
        return sum(
            value.numel() * value.element_size()
            for optimizer in self.optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )

    @property
    def draws(self) -> bool:
        """Whether a step draws random numbers: those of dropout."""
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.G.modules())


def training(case: Case, provider: Provider, batches: Sequence[Batch] = ()) -> Training:
    """Networks with the same weights for every provider, drawn as the trainer draws them, and their step.

    Args:
        case: what is trained.
        provider: who trains.
        batches: shown in turn, again and again; none for a random one, in the memory order of the provider.
    """
    channels_last = provider.channels_last if provider.ours else bool(provider.channels_last)
    config = case.config(provider.precision)
    config = dataclasses.replace(config, channels_last=channels_last, cuda_graph=provider.cuda_graph)
    shown = itertools.cycle(batches or [random_batch(config, case.size)])
    if provider.ours:
        return _ours(config, provider, shown)
    if isinstance(config, HDTrainConfig):
        return _plain_hd(config, provider, shown)
    assert isinstance(config, TrainConfig)
    return _plain(config, provider, shown)


def _ours(config: RunConfig, provider: Provider, batches: Iterator[Batch]) -> Training:
    step: Pix2PixStep | Pix2PixHDStep
    if isinstance(config, HDTrainConfig):
        step = build_hd_step(config, build_hd_networks(config), lean=provider.lean)
    else:
        assert isinstance(config, TrainConfig)
        step = build_step(config, lean=provider.lean)
    optimizers = tuple(each for each in (step.optimizer_G, step.optimizer_D) if each is not None)
    if not provider.fused_adam:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["fused"] = False
    graphs = config.torch_device().type == "cuda" and config.cuda_graph
    take = GraphedStep(step) if graphs else step  # as the trainer takes it

    def run() -> Losses:
        with torchp2p.backend(provider.backend):
            return take(next(batches))

    return Training(run, step.G, optimizers)


def _plain(config: TrainConfig, provider: Provider, batches: Iterator[Batch]) -> Training:
    """The original procedure of pix2pix."""
    ours = build_step(config)
    assert ours.D is not None
    levels = LEVELS[config.netG]
    dropout = () if config.no_dropout else range(4, levels - 1)
    plain_G = PlainUnet(config.input_nc, config.output_nc, levels, config.ngf, config.norm, dropout)
    channels, layers = config.input_nc + config.output_nc, config.n_layers_D if config.netD == "n_layers" else 3
    plain_D = PlainPatchDiscriminator(channels, config.ndf, layers, config.norm)
    G, D = _made(plain_G, ours.G, provider), _made(plain_D, ours.D, provider)
    adams, generator = (_adam(config, G), _adam(config, D)), torch.Generator()

    def run() -> Losses:
        batch = next(batches)
        return plain_step(
            G, D, *adams, batch["A"], batch["B"], generator, config.gan_mode, lambda_L1=config.lambda_L1
        )  # fmt: skip

    return Training(run, G, adams)


def _plain_hd(config: HDTrainConfig, provider: Provider, batches: Iterator[Batch]) -> Training:
    """The original procedure of pix2pixHD."""
    ours = build_hd_networks(config)
    sizes = (config.generator_nc, config.output_nc, config.ngf, config.n_downsample_global, config.n_blocks_global)
    plain: dict[str, nn.Module] = {
        "G": PlainGlobal(*sizes, config.norm)
        if config.netG == "global"
        else PlainLocal(*sizes, config.n_local_enhancers, config.n_blocks_local, config.norm),
        "D": PlainMultiscale(
            config.condition_nc + config.output_nc, config.ndf, config.n_layers_D, config.num_D, config.norm,
            not config.no_ganFeat_loss,
        ),
    }  # fmt: skip
    if config.has_encoder:
        plain["E"] = PlainEncoder(config.output_nc, config.feat_num, config.nef, config.n_downsample_E, config.norm)
    nets = {name: _made(net, ours.pop(name), provider) for name, net in plain.items()}
    optimizer_G = _adam(config, *(nets[name] for name in ("G", "E") if name in nets))
    optimizer_D = _adam(config, nets["D"])
    if config.vgg_weights is not None:
        vgg = PlainVGG19().requires_grad_(False)
        weights = torch.load(config.vgg_weights, weights_only=True)
        vgg.load_state_dict({name: value for name, value in weights.items() if name.startswith("features.")})
        nets["vgg"] = _run_as(vgg.to(config.torch_device()), provider)

    def run() -> Losses:
        return plain_hd_step(
            nets, optimizer_G, optimizer_D, next(batches), config.label_nc, config.n_layers_D, config.num_D,
            lambda images: images, config.no_instance, config.label_feat, config.gan_mode, config.lambda_feat,
            config.no_ganFeat_loss,
        )  # fmt: skip

    return Training(run, nets["G"], (optimizer_G, optimizer_D))


def _made(plain: nn.Module, ours: nn.Module, provider: Provider) -> nn.Module:
    """The plain network with the weights of ours, whose state_dict has them in the same order."""
    entries = zip(plain.state_dict(), ours.state_dict().values(), strict=True)
    plain.load_state_dict(dict(entries))
    return _run_as(plain.to(next(ours.parameters()).device), provider)


def _run_as(net: nn.Module, provider: Provider) -> nn.Module:
    if provider.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if provider.precision == "bfloat16":
        net.forward = _autocast(net.forward, next(net.parameters()).device.type)  # type: ignore[method-assign]
    if provider.compile_mode is not None:
        net.compile(mode=provider.compile_mode, dynamic=False)
    return net


def _autocast(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    """``forward`` in bfloat16; what it returns is float32, as autocast makes it for the losses of torch."""

    def run(*inputs: Tensor) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return _float32(forward(*inputs))

    return run


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else [_float32(each) for each in value]


def _adam(config: RunConfig, *networks: nn.Module) -> torch.optim.Adam:
    """As the originals make it: none of torch's faster implementations is asked for."""
    parameters = [parameter for net in networks for parameter in net.parameters()]
    return torch.optim.Adam(parameters, lr=config.lr, betas=(config.beta1, 0.999))
