"""The options of a pix2pixHD generator whose file carries none, such as one of the original project."""

from __future__ import annotations

from pathlib import Path

from torchp2p.cli.parsing import UsageError
from torchp2p.models.describe import Description
from torchp2p.train import HDTrainConfig

_DEFAULT = HDTrainConfig(no_vgg_loss=True)


def pix2pixhd_config(
    file: Path, name: str, described: Description, label_nc: int | None, no_instance: bool
) -> HDTrainConfig:
    """What the tensors of a generator tell of its training, and the original's defaults for the rest.

    They tell how many channels it sees, which are labels, edges and features. Without ``label_nc`` those of the
    original's default are looked for, 35 labels; or 3, a picture.

    Args:
        described: by ``describe_state_dict``.
        label_nc, no_instance: as they were in the training; None for not known.

    Raises:
        UsageError: the channels are others.
    """
    channels = int(described["input_nc"])
    if label_nc is None and channels == _DEFAULT.input_nc:
        label_nc, no_instance = 0, True
    if label_nc is None:
        label_nc = _DEFAULT.label_nc
    if label_nc == 0 and not no_instance:
        raise UsageError("--label_nc 0 has pictures as input, which have no instance maps: it needs --no_instance")
    seen = (label_nc or _DEFAULT.input_nc) + (not no_instance)
    features = channels - seen
    if features not in (0, _DEFAULT.feat_num):
        edges = "no edges" if no_instance else "edges"
        raise UsageError(
            f"{file} sees {channels} channels, which {label_nc or _DEFAULT.input_nc} labels and {edges} do not make, "
            f"with {_DEFAULT.feat_num} features or without: give --label_nc and --no_instance as in its training"
        )
    told = {key: value for key, value in described.items() if key in HDTrainConfig.fields()}
    enhancers = int(described.get("n_local_enhancers", 0))
    return HDTrainConfig.from_mapping({
        **told, "name": name, "label_nc": label_nc, "no_instance": no_instance, "no_vgg_loss": True,
        "input_nc": _DEFAULT.input_nc, "instance_feat": features > 0 and not no_instance,
        "label_feat": features > 0 and no_instance, "load_size": _DEFAULT.load_size << enhancers,
    })  # fmt: skip
