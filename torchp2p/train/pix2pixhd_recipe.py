"""pix2pixHD as the trainer trains it: from label maps, with or without features (spec sections 5.2, 5.4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchp2p.data import IGNORED_LABEL, LabelledDataset, build_labelled_dataset, to_rgb, to_step_batch
from torchp2p.models import (
    MultiscaleDiscriminator,
    VGG19Features,
    encoder_from_config,
    hd_generator_from_config,
    load_pretrain,
    run_encoder,
    synthesize,
)
from torchp2p.models.padding import reflected_to_multiple
from torchp2p.train.capturable import networks_of
from torchp2p.train.compiled import compile_networks
from torchp2p.train.hd_config import HDTrainConfig
from torchp2p.train.layout import images_in, placed
from torchp2p.train.lean import Lean
from torchp2p.train.nonfinite import plainly
from torchp2p.train.pix2pixhd_step import Pix2PixHDStep
from torchp2p.train.recipe import Picture, Recipe

_logger = logging.getLogger("torchp2p")


class Pix2PixHDRecipe(Recipe[HDTrainConfig]):
    """See ``Recipe``. Images whose size is no multiple of what the networks halve are padded by reflection."""

    dataset: LabelledDataset

    def __init__(self, config: HDTrainConfig) -> None:
        super().__init__(config)
        self.dataset = build_labelled_dataset(config)
        self._padded: set[tuple[int, int]] = set()

    def build(self, *, resuming: bool = False) -> list[str]:
        """Make the step, from nothing or from another training."""
        config = self.config
        self.networks = build_hd_networks(config)
        notes = [] if resuming or not config.load_pretrain else self._pretrain()
        self._step = build_hd_step(config, self.networks)
        self._take = self.graph(self._step)
        if config.compile:
            notes += compile_networks(networks_of(self._step).values(), self.device)
        if config.cache_mb:
            self.dataset.preload()
        return notes

    def _pretrain(self) -> list[str]:
        """Start from another training."""
        config = self.config
        reports = load_pretrain(config.load_pretrain, self.networks, config.which_epoch)
        return [f"{name} from {config.load_pretrain}: {report.summary()}" for name, report in reports.items()]

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate, and release the global generator when its time has come."""
        if self._step.fix_global and not self.config.fixes_global(epoch):
            self._step.release_global()
        self._step.set_lr(self.config.lr_in_epoch(epoch))

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The small integers that the loader makes are copied, then padded and expanded."""
        multiple = self.config.size_multiple
        tensors = {part: value for part, value in batch.items() if isinstance(value, Tensor)}
        height, width = tensors["label"].shape[2:]
        if (height % multiple or width % multiple) and (height, width) not in self._padded:
            self._padded.add((height, width))
            _logger.warning(
                "images of %dx%d (height x width) are padded by reflection to multiples of %d", height, width, multiple
            )
        moved = {part: value.to(self.device, non_blocking=True) for part, value in tensors.items()}
        padded = {part: reflected_to_multiple(value, multiple) for part, value in moved.items()}
        return images_in(self.config.layout(), to_step_batch(padded, self.device))

    def step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One iteration."""
        try:
            return self._take(batch)
        except ValueError as error:  # the networks speak of their layers; what the user chose is the size
            height, width = batch["label"].shape[2:]
            raise ValueError(f"images of {height}x{width} (height x width) cannot be trained on: {error}") from error

    def shown(self, batch: Mapping[str, Any]) -> dict[str, Picture]:
        """input_label, synthesized_image and real_image."""
        assert self._step.fake is not None
        first = {part: value[0] for part, value in batch.items() if isinstance(value, Tensor)}
        return self._pictures(first, self._step.fake[0])

    def still(self, index: int) -> dict[str, Picture]:
        """input_label, synthesized_image and real_image."""
        sample: Mapping[str, Any] = self.dataset.unaugmented().sample(index, 0)
        parts = {part: value for part, value in sample.items() if isinstance(value, Tensor)}
        batch = to_step_batch({part: value[None] for part, value in parts.items()}, self.device)
        fake = synthesize(
            self._step.G, batch["label"], batch.get("inst"), self.config.label_nc, self._features(batch),
            ignored=self.dataset.ignored_label,
        )  # fmt: skip
        return self._pictures(parts, fake[0])

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Of G, with E, and of D."""
        return {"optimizer_G": self._step.optimizer_G, "optimizer_D": self._step.optimizer_D}

    def extras(self) -> dict[str, Any]:
        """The pool, and the scalers of float16."""
        return {"pool": self._step.pool, "scaler_G": self._step.scaler_G, "scaler_D": self._step.scaler_D}

    def _features(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """What the generator is told of the style of a fixed sample."""
        if not self.config.has_encoder:
            return batch.get("feat")
        ids = batch["label" if self.config.label_feat else "inst"]
        return run_encoder(self.networks["E"], batch["image"], ids)

    def _pictures(self, sample: Mapping[str, Tensor], fake: Tensor) -> dict[str, Picture]:
        label, real = self.dataset.pictures({**sample, "name": ""})  # type: ignore[typeddict-item]
        height, width = label.shape[:2]
        made = plainly(fake[:, :height, :width], to_rgb)
        return {"input_label": label, "synthesized_image": made, "real_image": real}


def build_hd_networks(config: HDTrainConfig) -> dict[str, nn.Module]:
    """G, D and, where checkpoints hold one, E, seeded, on the configuration's device."""
    torch.manual_seed(config.seed)
    networks: dict[str, nn.Module] = {
        "G": hd_generator_from_config(config.as_dict()),
        "D": MultiscaleDiscriminator(
            config.condition_nc + config.output_nc, config.ndf, config.n_layers_D, config.num_D, config.norm,
            get_interm_feat=not config.no_ganFeat_loss,
        ),
    }  # fmt: skip
    if config.keeps_encoder:
        networks["E"] = encoder_from_config(config.as_dict())
    return {name: placed(net, config.torch_device(), config.layout()) for name, net in networks.items()}


def build_hd_step(
    config: HDTrainConfig, networks: Mapping[str, nn.Module], *, lean: Lean | None = None
) -> Pix2PixHDStep:
    """Optimisers and losses as the configuration says, around networks of ``build_hd_networks``.

    Args:
        lean: the savings, in place of those that the configuration asks for.

    Raises:
        FileNotFoundError, ValueError: of the weights of VGG.
    """
    vgg = None if config.no_vgg_loss or config.vgg_weights is None else VGG19Features(config.vgg_weights)
    return Pix2PixHDStep(
        networks["G"], networks["D"], networks["E"] if config.has_encoder else None, precision=config.precision,
        label_nc=config.label_nc, ignored_label=IGNORED_LABEL if config.unknown_label == "ignore" else None,
        no_instance=config.no_instance, label_feat=config.label_feat,
        gan_mode=config.gan_mode, n_layers_D=config.n_layers_D, num_D=config.num_D, lambda_feat=config.lambda_feat,
        no_ganFeat_loss=config.no_ganFeat_loss, no_vgg_loss=config.no_vgg_loss,
        vgg=None if vgg is None else placed(vgg, config.torch_device(), config.layout()),
        pool_size=config.pool_size, lr=config.lr,
        beta1=config.beta1, fix_global=config.niter_fix_global > 0, max_skipped=config.max_skipped, seed=config.seed,
        lean=lean or Lean(recompute=config.recompute, bf16_state=config.bf16_state),
    )  # fmt: skip
