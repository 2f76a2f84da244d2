"""What a pix2pixHD training is told. Field names are those of the original project (spec section 10.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torchp2p.data.labelled import LABELLED_DATASETS, UNKNOWN_LABELS
from torchp2p.data.transforms import PREPROCESS_MODES
from torchp2p.models.define_hd import HD_GENERATORS
from torchp2p.train.precision import PRECISIONS
from torchp2p.train.run_config import ConfigError, RunConfig
from torchp2p.train.schedule import lr_factor


@dataclass(frozen=True)
class HDTrainConfig(RunConfig):
    """Everything that decides a pix2pixHD training.

    Args:
        dataset_mode: labelled (folders of label maps, instances, images; or Cityscapes), demo (drawn).
        resize_or_crop: scale_width, resize_and_crop, crop, scale_width_and_crop or none.
        label_nc: label classes; 0 for images as input.
        no_instance: there are no instance maps.
        unknown_label: what becomes of labels outside label_nc, error, last (class) or ignore.
        load_features: read precomputed features.
        cache_mb: megabytes of decoded samples to keep in memory, in every worker; 0 for none.
        netG: global, or local for a generator with enhancers.
        n_downsample_global: halvings of the global generator.
        n_blocks_global: residual blocks of the global generator.
        n_local_enhancers: enhancers of netG local.
        n_blocks_local: residual blocks of an enhancer.
        n_layers_D: strided layers of a discriminator.
        num_D: scales with a discriminator each.
        norm: instance or batch.
        instance_feat: encode the style of every instance.
        label_feat: encode the style of every class.
        feat_num: channels of the encoded features.
        nef: encoder filters in the first layer.
        n_downsample_E: halvings of the encoder.
        n_clusters: styles per class that features are clustered to.
        gan_mode: lsgan, vanilla or hinge.
        lambda_feat: weight of the feature matching and of the VGG loss.
        no_ganFeat_loss: leave out feature matching.
        no_vgg_loss: leave out the VGG loss.
        vgg_weights: file of torchvision's vgg19 weights.
        load_pretrain: folder of a training to start from.
        which_epoch: epoch of load_pretrain.
        niter_fix_global: epochs that train the outermost enhancer alone.
        coarse_to_fine: train the global generator first, at the size it works at, unless load_pretrain names one.
        niter_global: epochs of that at the full learning rate.
        niter_decay_global: epochs of that over which it falls.
        niter: epochs at the full learning rate.
        niter_decay: epochs over which it falls.
        precision: float32, bfloat16 or float16.
        recompute: make activations again in the backward pass instead of keeping them.
        bf16_state: keep the moments of Adam in bfloat16.
        max_skipped: steps in a row with a loss that is not finite before the training stops.
    """

    name: str = "label2city"
    load_size: int = 1024
    crop_size: int = 512
    display_freq: int = 100
    save_latest_freq: int = 1000
    save_epoch_freq: int = 10
    dataset_mode: str = "labelled"
    resize_or_crop: str = "scale_width"
    label_nc: int = 35
    no_instance: bool = False
    unknown_label: str = "error"
    load_features: bool = False
    cache_mb: int = 0
    netG: str = "global"
    n_downsample_global: int = 4
    n_blocks_global: int = 9
    n_local_enhancers: int = 1
    n_blocks_local: int = 3
    n_layers_D: int = 3
    num_D: int = 2
    norm: str = "instance"
    instance_feat: bool = False
    label_feat: bool = False
    feat_num: int = 3
    nef: int = 16
    n_downsample_E: int = 4
    n_clusters: int = 10
    gan_mode: str = "lsgan"
    lambda_feat: float = 10.0
    no_ganFeat_loss: bool = False
    no_vgg_loss: bool = False
    vgg_weights: str | None = None
    load_pretrain: str = ""
    which_epoch: str = "latest"
    niter_fix_global: int = 0
    coarse_to_fine: bool = False
    niter_global: int = 100
    niter_decay_global: int = 100
    niter: int = 100
    niter_decay: int = 100
    precision: str = "float32"
    recompute: bool = False
    bf16_state: bool = False
    max_skipped: int = 10

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dataset_mode": tuple(LABELLED_DATASETS),
        "resize_or_crop": tuple(PREPROCESS_MODES),
        "unknown_label": UNKNOWN_LABELS,
        "netG": HD_GENERATORS,
        "norm": ("instance", "batch"),
        "gan_mode": ("lsgan", "vanilla", "hinge"),
        "precision": tuple(PRECISIONS),
    }
    POSITIVE: ClassVar[tuple[str, ...]] = (
        *RunConfig.POSITIVE, "n_downsample_global", "n_blocks_global", "n_local_enhancers", "n_blocks_local",
        "n_layers_D", "num_D", "feat_num", "nef", "n_downsample_E", "n_clusters", "max_skipped",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = (
        *RunConfig.NOT_NEGATIVE, "label_nc", "cache_mb", "lambda_feat", "niter_fix_global", "niter", "niter_decay",
        "niter_global", "niter_decay_global",
    )  # fmt: skip
    FREE_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *RunConfig.FREE_ON_RESUME, "niter", "niter_decay", "cache_mb", "vgg_weights", "n_clusters", "max_skipped",
        "coarse_to_fine", "niter_global", "niter_decay_global", "recompute",
    )  # fmt: skip

    def _check_together(self) -> None:
        super()._check_together()
        if self.niter + self.niter_decay < 1:
            raise ConfigError("niter and niter_decay must not both be 0")
        if not self.no_vgg_loss and not self.vgg_weights:
            raise ConfigError(
                "vgg_weights must name a file of torchvision's vgg19 weights, or the VGG loss be left out with "
                "no_vgg_loss"
            )
        for name in ("niter_fix_global", "coarse_to_fine"):
            if getattr(self, name) and self.netG != "local":
                raise ConfigError(f"{name} needs netG local, got netG {self.netG}")
        if self.label_nc == 0 and not self.no_instance:
            raise ConfigError("label_nc 0 has images as input, which have no instance maps: no_instance must be true")
        self._check_features()

    def _check_features(self) -> None:
        if self.instance_feat and self.label_feat:
            raise ConfigError("instance_feat and label_feat must not both be true")
        if self.instance_feat and self.no_instance:
            raise ConfigError("instance_feat needs instance maps: no_instance must be false")
        if self.label_feat and self.label_nc == 0:
            raise ConfigError("label_feat needs label maps: label_nc must be more than 0")
        if self.load_features and not self.has_features:
            raise ConfigError("load_features needs instance_feat or label_feat to be true")

    @property
    def has_features(self) -> bool:
        """Whether the generator sees features."""
        return self.instance_feat or self.label_feat

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder is trained with the generator."""
        return self.has_features and not self.load_features

    @property
    def keeps_encoder(self) -> bool:
        """Whether checkpoints hold an encoder: the one in training, or the one that made the features."""
        return self.has_encoder or (self.load_features and bool(self.load_pretrain))

    @property
    def condition_nc(self) -> int:
        """Channels of labels (or of the input image) and edges: what the discriminator sees besides the image."""
        return (self.label_nc or self.input_nc) + (not self.no_instance)

    @property
    def generator_nc(self) -> int:
        """Channels that the generator sees."""
        return self.condition_nc + (self.feat_num if self.has_features else 0)

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        enhancers = self.n_local_enhancers if self.netG == "local" else 0
        halvings = self.n_downsample_global + enhancers
        return 1 << (max(halvings, self.n_downsample_E) if self.has_encoder else halvings)

    @property
    def cache_bytes(self) -> int:
        """``cache_mb`` in bytes."""
        return self.cache_mb * 2**20

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.niter + self.niter_decay

    def lr_in_epoch(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.lr * lr_factor("linear_hd", epoch, self.niter, self.niter_decay)

    def fixes_global(self, epoch: int) -> bool:
        """Whether the outermost enhancer alone is trained in an epoch, counted from 1."""
        return epoch <= self.niter_fix_global
