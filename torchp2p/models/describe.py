"""The options a network was made with, read from its state_dict (spec sections 2.2 to 2.7, 3.1 to 3.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

Description = dict[str, str | int | bool]

_IN_BLOCK = re.compile(r"model\.(\d+)\.conv_block\.")
_IN_ENHANCER = re.compile(r"model(\d+)_2\.(\d+)\.")
_IN_SCALE = re.compile(r"(?:scale(\d+)_layer(\d+)|layer(\d+))\.")


def describe_state_dict(state_dict: Mapping[str, Tensor]) -> Description | None:
    """Read the options of a network, of this package or the originals, from names and shapes.

    Generators have ``netG``, ``input_nc``, ``output_nc``, ``ngf``, ``norm``; ResNets also ``use_dropout`` and
    ``padding_type`` (``reflect`` stands for ``replicate`` too), the ``global`` and ``local`` ones
    ``n_downsample_global`` and ``n_blocks_global``, and ``local`` also ``n_local_enhancers`` and
    ``n_blocks_local``. A ``global`` one of two halvings cannot be told from a ResNet and is described as that.
    Discriminators have ``netD``, ``input_nc`` (all channels that are judged), ``ndf``, ``norm``; ``n_layers`` and
    ``multiscale`` ones ``n_layers_D``, the latter also ``num_D`` and ``get_interm_feat``. The encoder has ``netE``
    (``instance``), ``input_nc``, ``feat_num``, ``nef``, ``norm`` and ``n_downsample_E``. What leaves no trace in
    names and shapes is absent: the dropout and the variant of a U-Net. A ``module.`` in front of every name is
    read past.

    Returns:
        The options by their names, ``netG``, ``netD`` or ``netE`` first; None for a network that is not known.
    """
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): value for name, value in state_dict.items()}
    for recognise in (
        _unet, _encoder_decoder, _resnet, _local_enhancer, _instance_encoder,
        _patch_discriminator, _pixel_discriminator, _multiscale_discriminator,
    ):  # fmt: skip
        description = recognise(state_dict)
        if description is not None:
            return description
    return None


def _unet(entries: Mapping[str, Tensor]) -> Description | None:
    first, last = _conv(entries, "model.model.0"), _conv(entries, "model.model.3")
    if first is None or last is None:
        return None
    levels = sum(tensor.dim() == 4 for tensor in entries.values()) // 2
    return {
        "netG": f"unet_{2**levels}",
        "input_nc": first.shape[1],
        "output_nc": last.shape[1],
        "ngf": first.shape[0],
        "norm": _norm(entries, conv="model.model.1.model.1", norm="model.model.1.model.2"),
    }


def _encoder_decoder(entries: Mapping[str, Tensor]) -> Description | None:
    first, last = _conv(entries, "encoder.conv0"), _conv(entries, "decoder.conv7")
    if first is None or last is None:
        return None
    return {
        "netG": "encoder_decoder",
        "input_nc": first.shape[1],
        "output_nc": last.shape[1],
        "ngf": first.shape[0],
        "norm": _norm(entries, conv="encoder.conv1", norm="encoder.norm1"),
    }


def _resnet(entries: Mapping[str, Tensor]) -> Description | None:
    blocks = sorted({int(match[1]) for match in map(_IN_BLOCK.match, entries) if match})
    first = _conv(entries, "model.1")
    if first is None or not blocks or not all(name.startswith("model.") for name in entries):
        return None
    convs = _conv_indices(entries, "model.")
    options: Description = {
        "netG": f"resnet_{len(blocks)}blocks",
        "input_nc": first.shape[1],
        "output_nc": entries[f"model.{convs[-1]}.weight"].shape[0],
        "ngf": first.shape[0],
        "norm": _norm(entries, conv="model.1", norm="model.2"),
    }
    downs = (blocks[0] - 4) // 3
    if downs != 2:
        return options | {"netG": "global", "n_downsample_global": downs, "n_blocks_global": len(blocks)}
    in_block = _conv_indices(entries, f"model.{blocks[0]}.conv_block.")
    return options | {
        "use_dropout": in_block in ([1, 6], [0, 4]),
        "padding_type": "zero" if in_block[:1] == [0] else "reflect",
    }


def _local_enhancer(entries: Mapping[str, Tensor]) -> Description | None:
    enhancers = {int(match[1]) for match in map(_IN_ENHANCER.match, entries) if match}
    blocks = sorted({int(match[1]) for match in map(_IN_BLOCK.match, entries) if match})
    n = max(enhancers, default=0)
    first = _conv(entries, f"model{n}_1.1")
    if first is None or not blocks:
        return None
    back = _conv_indices(entries, f"model{n}_2.")  # the transposed convolution after the blocks, and the last
    return {
        "netG": "local",
        "input_nc": first.shape[1],
        "output_nc": entries[f"model{n}_2.{back[-1]}.weight"].shape[0],
        "ngf": first.shape[0],
        "norm": _norm(entries, conv="model.1", norm="model.2"),
        "n_downsample_global": (blocks[0] - 4) // 3,
        "n_blocks_global": len(blocks),
        "n_local_enhancers": n,
        "n_blocks_local": back[0],
    }


def _instance_encoder(entries: Mapping[str, Tensor]) -> Description | None:
    first = _conv(entries, "model.1")
    convs = _conv_indices(entries, "model.")
    if first is None or first.shape[2:] != (7, 7) or len(convs) % 2 or not all(n.startswith("model.") for n in entries):
        return None
    return {
        "netE": "instance",
        "input_nc": first.shape[1],
        "feat_num": entries[f"model.{convs[-1]}.weight"].shape[0],
        "nef": first.shape[0],
        "norm": _norm(entries, conv="model.1", norm="model.2"),
        "n_downsample_E": len(convs) // 2 - 1,
    }


def _patch_discriminator(entries: Mapping[str, Tensor]) -> Description | None:
    first = _conv(entries, "model.0")
    if first is None or first.shape[2:] != (4, 4):
        return None
    return {
        "netD": "n_layers",
        "input_nc": first.shape[1],
        "ndf": first.shape[0],
        "norm": _norm(entries, conv="model.2", norm="model.3"),
        "n_layers_D": (_conv_indices(entries, "model.")[-1] - 2) // 3,
    }


def _pixel_discriminator(entries: Mapping[str, Tensor]) -> Description | None:
    first = _conv(entries, "net.0")
    if first is None or first.shape[2:] != (1, 1):
        return None
    return {
        "netD": "pixel",
        "input_nc": first.shape[1],
        "ndf": first.shape[0],
        "norm": _norm(entries, conv="net.2", norm="net.3"),
    }


def _multiscale_discriminator(entries: Mapping[str, Tensor]) -> Description | None:
    found = [match for match in map(_IN_SCALE.match, entries) if match]
    if not found or len(found) != len(entries):
        return None
    grouped = found[0][1] is not None
    first = _conv(entries, "scale0_layer0.0" if grouped else "layer0.0")
    if first is None:
        return None
    if grouped:
        norm = _norm(entries, conv="scale0_layer1.0", norm="scale0_layer1.1")
        n_layers = max(int(match[2]) for match in found) - 1
    else:
        norm = _norm(entries, conv="layer0.2", norm="layer0.3")
        n_layers = (_conv_indices(entries, "layer0.")[-1] - 2) // 3
    return {
        "netD": "multiscale",
        "input_nc": first.shape[1],
        "ndf": first.shape[0],
        "norm": norm,
        "n_layers_D": n_layers,
        "num_D": len({match[1] or match[3] for match in found}),
        "get_interm_feat": grouped,
    }


def _conv(entries: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The weight of the convolution ``name``, if there is one."""
    weight = entries.get(f"{name}.weight")
    return weight if weight is not None and weight.dim() == 4 else None


def _norm(entries: Mapping[str, Tensor], *, conv: str, norm: str) -> str:
    """The norm after ``conv``: only batch has a weight, only instance leaves the convolution its bias."""
    if f"{norm}.weight" in entries:
        return "batch"
    return "instance" if f"{conv}.bias" in entries else "none"


def _conv_indices(entries: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Indices of the convolutions that stand directly under ``prefix``, in order."""
    indices = []
    for name, tensor in entries.items():
        index, _, entry = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and index.isdigit() and entry == "weight" and tensor.dim() == 4:
            indices.append(int(index))
    return sorted(indices)
