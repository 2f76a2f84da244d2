"""One training step of pix2pixHD (spec sections 4.2, 4.4 to 4.6, 5.2, 5.4, 5.7), usable without the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import NoneType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from torchp2p import ops
from torchp2p.models import (
    GlobalGenerator,
    InstanceEncoder,
    LabelMap,
    LocalEnhancer,
    MultiscaleDiscriminator,
    encode_labels,
    recompute,
)
from torchp2p.models.inputs import tensor_of
from torchp2p.nn import FeatureMatchingLoss, GANLoss
from torchp2p.train.arguments import require_lean, require_network, required
from torchp2p.train.frozen import freeze_all_but_the_outermost_enhancer, trainable
from torchp2p.train.layout import layout_of
from torchp2p.train.lean import Lean
from torchp2p.train.nonfinite import first_nonfinite
from torchp2p.train.optimisers import adam, set_lr, stepping_in_backward
from torchp2p.train.pool import ImagePool
from torchp2p.train.precision import PRECISIONS, require_precision

GAN_MODES = ("lsgan", "vanilla", "hinge")
LOSSES = ("G_GAN", "G_GAN_Feat", "G_VGG", "D_real", "D_fake")
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


class Pix2PixHDStep:
    """G, with E, and D are stepped at once: the gradients of both are those of the same weights.

    ``step(batch)`` runs one iteration and returns the losses under the names of the original: ``G_GAN``,
    ``G_GAN_Feat``, ``G_VGG`` (weighted), ``D_real`` and ``D_fake`` (not halved); those in use, as scalars on the
    device. ``step.fake`` is the image that G made.

    A step with a loss that is not finite changes no weight; ``step.skipped`` counts such steps in a row.

    The mathematics are those of the original, without work that it throws away. Besides the savings that Lean lists:

    * the losses are differentiated one by one up to the image, each freeing what it kept before the next is taken,
      and then once through G;
    * no gradient is taken of D's weights and of the labels for G's loss, of the image for D's, of what
      ``fix_global`` freezes, and nothing is kept of the real image's way through VGG.

    Args:
        G: generator of ``cat(labels, edges[, features])``, any module that keeps height and width.
        D: discriminator of ``cat(labels, edges, image)`` that returns ``[scale][layer]``, decisions last.
        E: encoder of (image, ids) to features, stepped with G; None for none, or where batches bring ``feat``.
        precision: ``float32``, or ``bfloat16`` or ``float16`` for autocast (parameters, statistics and losses stay
            float32); ``float16`` scales the losses of G and of D, each by a GradScaler of its own.
        label_nc: number of labels; 0 where ``label`` is an image.
        ignored_label: an id that is no label, and 0 in every channel; None for none.
        no_instance: no edges among the inputs.
        label_feat: E pools over labels instead of instances.
        gan_mode: ``lsgan``, ``vanilla`` (with logits) or ``hinge``.
        n_layers_D, num_D: of D, to be checked against what it returns; None takes them from there.
        lambda_feat: weight of feature matching and of the VGG loss.
        no_ganFeat_loss, no_vgg_loss: leave these losses out.
        vgg: frozen module from images to five feature maps, as VGG19Features.
        pool_size: earlier fakes, with their labels, that D may be shown instead of the newest.
        lr, beta1: of Adam, where no optimiser is given.
        optimizer_G, optimizer_D: used instead of Adam(lr, (beta1, 0.999)); the first has the parameters of E too.
        fix_global: train of G only the outermost enhancer until ``release_global()``.
        max_skipped: steps in a row that may be skipped; with the last of them an error is raised.
        lean: which work is saved; all that leaves the results the same, unless told otherwise.
        seed: of the pool.

    Raises:
        TypeError: a network that is no Module, a lean that is no Lean.
        ValueError: an unknown precision or mode, a precision that the device lacks, no ``vgg`` without
            ``no_vgg_loss``, a G without enhancers with ``fix_global``. In a step: labels out of range, a size that
            G does not keep, a batch without what the options ask for.
        FloatingPointError: in a step, ``max_skipped`` of them were skipped in a row; it names the first layer with
            an output that is not finite.
    """

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        E: nn.Module | None = None,
        *,
        precision: str = "float32",
        label_nc: int = 35,
        ignored_label: int | None = None,
        no_instance: bool = False,
        label_feat: bool = False,
        gan_mode: str = "lsgan",
        n_layers_D: int | None = None,
        num_D: int | None = None,
        lambda_feat: float = 10.0,
        no_ganFeat_loss: bool = False,
        no_vgg_loss: bool = False,
        vgg: nn.Module | None = None,
        pool_size: int = 0,
        lr: float = 2e-4,
        beta1: float = 0.5,
        optimizer_G: torch.optim.Optimizer | None = None,
        optimizer_D: torch.optim.Optimizer | None = None,
        fix_global: bool = False,
        max_skipped: int = 10,
        lean: Lean = Lean(),
        seed: int = 0,
    ) -> None:
        for name, network in (("G", G), ("D", D), ("E", E), ("vgg", vgg)):
            require_network(name, network, optional=name in ("E", "vgg"))
        require_lean(lean)
        device = next(G.parameters()).device
        require_precision(precision, device)
        if gan_mode not in GAN_MODES:
            raise ValueError(f"gan_mode must be one of {', '.join(GAN_MODES)}, got {gan_mode!r}")
        if vgg is None and not no_vgg_loss:
            raise ValueError("vgg must be given, or the loss be switched off with no_vgg_loss=True, got None")
        if max_skipped < 1:
            raise ValueError(f"max_skipped must be at least 1, got {max_skipped}")
        self.G, self.D, self.E = G, D, E
        self.vgg = None if no_vgg_loss else vgg
        self.label_nc, self.ignored_label = label_nc, ignored_label
        self.no_instance, self.label_feat, self.lean = no_instance, label_feat, lean
        self.lambda_feat, self.max_skipped = lambda_feat, max_skipped
        self.lr, self.beta1 = lr, beta1
        self.gan_loss = GANLoss(gan_mode)
        self.feature_loss = None if no_ganFeat_loss else FeatureMatchingLoss(lambda_feat, n_layers_D, num_D)
        self.pool = ImagePool(pool_size, seed)
        self.autocast = torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")
        self.scaler_G, self.scaler_D = (
            torch.amp.GradScaler(device.type, enabled=precision == "float16") for _ in range(2)
        )
        self.fix_global = fix_global
        if fix_global:
            freeze_all_but_the_outermost_enhancer(G)
        self._own_optimizer_G = optimizer_G is None
        self.optimizer_G = optimizer_G or self._adam(trainable(G, E))
        self.optimizer_D = optimizer_D or self._adam(D.parameters())
        self.fake: Tensor | None = None
        self.skipped = 0
        self.skipping_on_device: Callable[..., None] | None = None  # (finite, *optimizers): set by GraphedStep

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One iteration, on the device of the networks.

        Args:
            batch: ``label``, integers (N, 1, H, W), or an image (N, C, H, W) in [-1, 1] with ``label_nc`` 0;
                ``inst``, integers (N, 1, H, W), unless ``no_instance``; ``image`` (N, C, H, W) in [-1, 1]; and
                where features are precomputed ``feat`` (N, feat_num, H, W).
        """
        with ops.algorithm(self.lean.algorithm), recompute(self.lean.recompute):
            return self._step(batch)

    def _step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.optimizer_G.zero_grad(set_to_none=True)
        self.optimizer_D.zero_grad(set_to_none=True)
        condition, real = self._condition(batch), required(batch, "image")
        fake = self._generate(condition, batch)
        judged = fake.detach().requires_grad_()  # collects the gradient of all losses of G
        self.fake = fake.detach()
        found = self._judge_by_vgg(judged, real) | self._judge_by_D(condition, judged, real)
        losses = {name: found[name].detach() for name in LOSSES if name in found}
        if self._all_finite(losses, batch):
            self._learn_from_D(found, judged)
            del found, condition  # and with them what D kept, which G's backward pass has no use for
            self._learn_from(fake, judged)
        return losses

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of both optimisers."""
        set_lr(lr, self.optimizer_G, self.optimizer_D)

    def release_global(self) -> None:
        """End the phase of ``fix_global``: all of G is trained from now on, by a fresh Adam with the first ``lr``."""
        self.G.requires_grad_(True)
        self.fix_global = False
        self._own_optimizer_G = True
        self.optimizer_G = self._adam(trainable(self.G, self.E))

    # --- forward -------------------------------------------------------------------------------------------

    def _condition(self, batch: Mapping[str, Tensor]) -> Tensor | LabelMap:
        """What both G and D are shown of the labels."""
        inst, image = None if self.no_instance else required(batch, "inst"), required(batch, "image")
        encode = LabelMap if self.label_nc and self.lean.label_conv else encode_labels
        return encode(
            required(batch, "label"), inst, self.label_nc, ignored=self.ignored_label, dtype=image.dtype,
            layout=layout_of(image),
        )  # fmt: skip

    def _generate(self, condition: Tensor | LabelMap, batch: Mapping[str, Tensor]) -> Tensor:
        real, feat = batch["image"], batch.get("feat")
        with self.autocast:
            if self.E is not None:
                if feat is not None:
                    raise ValueError("batch must not have 'feat' where E is there to make the features")
                feat = self.E(real, required(batch, "label" if self.label_feat else "inst"))
            fake: Tensor = self.G(self._seen_by_G(condition, feat))
        if fake.shape != real.shape:
            raise ValueError(
                f"image must have a shape that G makes, {tuple(fake.shape)} of these labels, got {tuple(real.shape)}; "
                f"height and width must be multiples of what G halves them by"
            )
        return fake.to(real.dtype)

    def _seen_by_G(self, condition: Tensor | LabelMap, feat: Tensor | None) -> Tensor | LabelMap:
        if isinstance(condition, LabelMap):
            seen = condition.with_features(feat)
            return seen if isinstance(self.G, (GlobalGenerator, LocalEnhancer)) else seen.tensor()
        return condition if feat is None else torch.cat((condition, feat.to(condition.dtype)), 1)

    def _judge_by_vgg(self, judged: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The loss, once its gradient is in ``judged``."""
        if self.vgg is None:
            return {}
        with torch.no_grad(), self.autocast:
            of_real = self.vgg(real)
        with self.autocast:
            of_fake = self.vgg(judged)
        loss = ops.feature_matching_loss(of_fake, of_real, [self.lambda_feat * weight for weight in VGG_WEIGHTS])
        del of_fake, of_real  # the loss has what it needs of them
        self.scaler_G.scale(loss).backward(inputs=[judged])
        return {"G_VGG": loss.detach()}

    def _judge_by_D(self, condition: Tensor | LabelMap, judged: Tensor, real: Tensor) -> dict[str, Tensor]:
        with self.autocast:
            if not self._judges_once:
                for_D = self.D(self.pool.query(torch.cat((tensor_of(condition), judged), 1)))
            D = self._D_beside(condition)
            of_real = D(real)
            for_G = D(judged)
        if self._judges_once:
            for_D = for_G
        losses = {"G_GAN": self.gan_loss(for_G, True, for_discriminator=False)}
        if self.feature_loss is not None:
            losses["G_GAN_Feat"] = self.feature_loss(for_G, of_real)
        losses["D_real"], losses["D_fake"] = self.gan_loss(of_real, True), self.gan_loss(for_D, False)
        return losses

    @property
    def _judges_once(self) -> bool:
        return self.lean.judge_once and self.pool.size == 0 and not _has_running_statistics(self.D)

    def _D_beside(self, condition: Tensor | LabelMap) -> Callable[[Tensor], Any]:
        """D as a function of the image alone."""
        if self.lean.share_condition and isinstance(self.D, MultiscaleDiscriminator):
            shared = self.D.share(condition)
            return lambda image: self.D(image, shared)
        channels = tensor_of(condition)
        return lambda image: self.D(torch.cat((channels, image), 1))

    @property
    def steps_in_backward(self) -> bool:
        """Whether G's parameters are stepped one by one, see ``Lean``."""
        known = isinstance(self.G, (GlobalGenerator, LocalEnhancer)) and isinstance(self.E, (InstanceEncoder, NoneType))
        decided_later = self.scaler_G.is_enabled() or self.skipping_on_device is not None
        return self.lean.step_in_backward and self._own_optimizer_G and known and not decided_later

    # --- backward ------------------------------------------------------------------------------------------

    def _learn_from_D(self, losses: Mapping[str, Tensor], judged: Tensor) -> None:
        """D is stepped; the gradient of its part in G's losses is added to that of ``judged``."""
        loss_G = torch.stack([losses[name] for name in ("G_GAN", "G_GAN_Feat") if name in losses]).sum()
        loss_D = 0.5 * (losses["D_fake"] + losses["D_real"])
        self.scaler_G.scale(loss_G).backward(inputs=[judged], retain_graph=self._judges_once)
        self.scaler_D.scale(loss_D).backward(inputs=list(self.D.parameters()))
        self.scaler_D.step(self.optimizer_D)
        self.scaler_D.update()
        self.optimizer_D.zero_grad(set_to_none=True)

    def _learn_from(self, fake: Tensor, judged: Tensor) -> None:
        """G and E are stepped, by the gradient of ``judged``, which all losses have left there."""
        if self.steps_in_backward:
            with stepping_in_backward(self.optimizer_G):
                fake.backward(judged.grad)
            return
        fake.backward(judged.grad)
        self.scaler_G.step(self.optimizer_G)
        self.scaler_G.update()

    # --- losses that are not finite ------------------------------------------------------------------------

    def _all_finite(self, losses: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> bool:
        """Whether the step can be taken; raise where too many could not."""
        finite = torch.stack(list(losses.values())).isfinite().all()
        if self.skipping_on_device is not None:  # in a CUDA graph nothing can branch
            self.skipping_on_device(finite, self.optimizer_G, self.optimizer_D)
            return True
        if finite:
            self.skipped = 0
            return True
        self.skipped += 1
        if self.skipped >= self.max_skipped:
            self.refuse_to_go_on(losses, batch)
        return False

    def refuse_to_go_on(self, losses: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> NoReturn:
        """Raise FloatingPointError, with the losses and where in a step on ``batch`` the first bad value appears."""
        values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
        raise FloatingPointError(
            f"losses were not finite for {self.skipped} steps in a row ({values}): {self._origin(batch)}"
        )

    def _origin(self, batch: Mapping[str, Tensor]) -> str:
        """Where the first value that is not finite comes from."""
        for name, value in batch.items():
            if not value.isfinite().all():
                return f"batch[{name!r}] itself is not finite"

        def forward() -> None:
            condition, real = self._condition(batch), batch["image"]
            fake = self._generate(condition, batch)
            with self.autocast:
                for image in (real, fake):
                    self.D(torch.cat((tensor_of(condition), image), 1))
                    if self.vgg is not None:
                        self.vgg(image)

        networks = {"E": self.E, "G": self.G, "D": self.D, "vgg": self.vgg}
        layer = first_nonfinite({label: net for label, net in networks.items() if net is not None}, forward)
        return f"the first output that is not finite is that of {layer}" if layer else "the output of every layer is"

    # --- optimisers ----------------------------------------------------------------------------------------

    def _adam(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return adam(parameters, self.lr, self.beta1, bf16_state=self.lean.bf16_state)


def _has_running_statistics(net: nn.Module) -> bool:
    return any(name.endswith("running_mean") for name, _ in net.named_buffers())
