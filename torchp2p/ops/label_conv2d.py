"""``label_conv2d``: convolution of one-hot labels and dense channels that never builds the one-hot tensor.

What the first layer of the generator and of the discriminator sees is a label map. Its convolution is a sum of one
weight vector per kernel tap, and labels are constant over large areas, so it is a few additions per pixel.
Source: spec sections 2.5, 2.6, 3.2, 6.3 (the layers), 11.2 R3-R6, R9 and R10 (the savings).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _check, _label_conv2d_native
from torchp2p.ops._dispatch import choose
from torchp2p.ops._label_conv2d_native import LABEL_CODES, classes_of
from torchp2p.ops._label_range import check_labels
from torchp2p.ops._library import LIBRARY, differentiate, implementation, needed_gradients, register
from torchp2p.ops._norm_act_options import PAD_MODES
from torchp2p.reference import label_conv2d as reference
from torchp2p.reference.norm_act import memory_format_of


def label_conv2d(
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dense: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    pad_mode: str = "zeros",
    ignore_out_of_range: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Compute ``conv2d(cat(one_hot(labels, L), dense), weight, bias)`` without the one-hot tensor.

    Args:
        labels: (N, 1, H, W) or (N, H, W), ids 0..L-1 in any integer dtype, any strides.
        weight: (O, L + D, kh, kw), the L label channels first; float32, bfloat16, float16 or float64. D is the
            number of dense channels, and what is left is L.
        bias: (O,), dtype of the weight or float32.
        dense: (N, D, H, W), dtype of the weight: edges, features, image channels. None for none.
        stride, padding: an int, or (height, width).
        pad_mode: ``zeros``, ``reflect`` (needs padding smaller than the image) or ``replicate``. Labels are padded
            by index, which is what padding their one-hot channels does; a label in a border of zeros is none.
        ignore_out_of_range: an id outside 0..L-1 (say 255 for "unknown") contributes nothing, as a column of zeros
            in the one-hot tensor would. Otherwise it is an error.
        backend: ``native``, ``triton``, ``compile`` (the forward only; the gradient is the reference's),
            ``reference``, or None for the first that can run.

    Returns:
        (N, O, H', W'), dtype of the weight; channels_last where dense or the weight is that (labels, having one
        channel, say nothing), else contiguous, as with ``F.conv2d``. Sums are float32 or better. Differentiable
        twice with respect to weight, bias and dense.

    Weights of ids that do not occur are not read: unlike in a dense convolution, an infinity there spoils nothing.

    Under autocast weight, bias and dense are cast to autocast's dtype first, as for ``F.conv2d``; sums stay in
    float32.

    On a GPU the check of the ids waits for the device, so that the error can name id and place. While a CUDA graph is
    captured nothing may wait: the graph gets an assertion instead, which fails on the device when it is replayed with
    such an id. With ``ignore_out_of_range`` there is no check.

    Raises:
        TypeError: labels that are not integers, an argument of the wrong type, or a dtype that is not supported.
        ValueError: an id that is out of range (its value and place are named), shapes that do not fit, an unknown
            pad_mode, or a padding that is too large.
        BackendUnavailableError: the backend asked for cannot run; the message says why.
    """
    _check_tensors(labels, weight, bias, dense)
    _check.one_of("pad_mode", pad_mode, PAD_MODES)
    if not isinstance(ignore_out_of_range, bool):
        raise TypeError(f"ignore_out_of_range must be True or False, got {type(ignore_out_of_range).__name__}")
    strides, paddings = _pair("stride", stride, least=1), _pair("padding", padding, least=0)
    weight, bias, dense = _as_autocast_says(weight, bias, dense)
    if labels.dim() == 3:
        labels = labels.unsqueeze(1)
    _check_fit(labels, weight, bias, dense, paddings, pad_mode)
    chosen = choose("label_conv2d", weight, backend)
    result: Tensor = _OP(labels, weight, bias, dense, strides, paddings, pad_mode, ignore_out_of_range, chosen)
    return result


def _as_autocast_says(
    weight: Tensor, bias: Tensor | None, dense: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    device = weight.device.type
    if device == "meta" or not torch.is_autocast_enabled(device) or weight.dtype == torch.float64:
        return weight, bias, dense
    dtype = torch.get_autocast_dtype(device)
    return weight.to(dtype), None if bias is None else bias.to(dtype), None if dense is None else dense.to(dtype)


# --- checks --------------------------------------------------------------------------------------------


def _check_tensors(labels: Any, weight: Any, bias: Any, dense: Any) -> None:
    """Types, dtypes and numbers of dimensions, each on its own."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a Tensor, got {type(labels).__name__}")
    if labels.dtype not in LABEL_CODES:
        raise TypeError(f"labels must have an integer dtype, got {labels.dtype}")
    if labels.dim() != 3 and (labels.dim() != 4 or labels.shape[1] != 1):
        raise ValueError(f"labels must be (N, 1, H, W) or (N, H, W), got shape {tuple(labels.shape)}")
    _check.floating_tensor("weight", weight)
    if weight.dim() != 4:
        raise ValueError(f"weight must be (O, L + D, kh, kw), got shape {tuple(weight.shape)}")
    if bias is not None:
        _check.floating_tensor("bias", bias)
    if dense is not None:
        _check.image_batch("dense", dense)


def _check_fit(
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    padding: tuple[int, int],
    pad_mode: str,
) -> None:
    """Everything that could make a kernel read or write where it must not, in the user's words."""
    _check.same_device("labels", labels, weight, "weight")
    if bias is not None:
        _check.same_device("bias", bias, weight, "weight")
        if bias.dim() != 1 or bias.shape[0] != weight.shape[0]:
            raise ValueError(f"bias must have shape ({weight.shape[0]},) as weight has, got {tuple(bias.shape)}")
        if bias.dtype != weight.dtype and bias.dtype != torch.float32:
            raise TypeError(f"bias must be {weight.dtype} like weight or torch.float32, got {bias.dtype}")
    image = labels.shape[2:]
    if dense is not None:
        _check.same_device("dense", dense, weight, "weight")
        if dense.dtype != weight.dtype:
            raise TypeError(f"dense must be {weight.dtype} like weight, got {dense.dtype}")
        if dense.shape[0] != labels.shape[0] or dense.shape[2:] != image:
            raise ValueError(
                f"dense must be (N, D, H, W) with N, H, W of labels {tuple(labels.shape)}, got {tuple(dense.shape)}"
            )
    dense_channels = 0 if dense is None else dense.shape[1]
    if weight.shape[1] <= dense_channels:
        raise ValueError(
            f"weight must have more input channels than dense ({dense_channels}), got shape {tuple(weight.shape)}"
        )
    window = weight.shape[2:]
    for size, pad, kernel in zip(image, padding, window, strict=True):
        if kernel == 0:
            raise ValueError(f"weight must have a kernel of at least one tap, got shape {tuple(weight.shape)}")
        if pad and pad_mode == "reflect" and pad >= size:
            raise ValueError(
                f"padding must be smaller than height and width for pad_mode 'reflect', got {padding} "
                f"with labels of shape {tuple(labels.shape)}"
            )
        if pad and pad_mode == "replicate" and size == 0:
            raise ValueError(f"pad_mode 'replicate' needs a pixel to repeat, got labels of shape {tuple(labels.shape)}")
        if size + 2 * pad < kernel:
            raise ValueError(
                f"weight must have a kernel that fits into the padded labels, got {tuple(window)} for labels of "
                f"shape {tuple(labels.shape)} with padding {padding}"
            )


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """An int, or two of them for height and width, none below ``least``."""
    if isinstance(value, int):
        pair = (value, value)
    elif isinstance(value, (tuple, list)) and all(isinstance(item, int) for item in value):
        if len(value) != 2:
            raise ValueError(f"{name} must be an int or (height, width), got {tuple(value)}")
        pair = (value[0], value[1])
    else:
        raise TypeError(f"{name} must be an int or (height, width), got {value!r}")
    if pair[0] < least or pair[1] < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return pair


# --- schema and implementations ------------------------------------------------------------------------

LIBRARY.define(
    "label_conv2d(Tensor labels, Tensor weight, Tensor? bias, Tensor? dense, int[] stride, int[] padding, "
    "str pad_mode, bool ignore_out_of_range, str backend) -> Tensor"
)
LIBRARY.define(
    "label_conv2d_backward(Tensor grad_y, Tensor labels, Tensor weight, Tensor? bias, Tensor? dense, int[] stride, "
    "int[] padding, str pad_mode, bool[] needs, str backend) "
    "-> (Tensor grad_weight, Tensor grad_bias, Tensor grad_dense)"
)


def _forward(
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
    ignore_out_of_range: bool,
    backend: str,
) -> Tensor:
    args = (labels, weight, bias, dense, stride, padding, pad_mode)
    y = _empty_output(labels, weight, dense, stride, padding)
    if backend == "native" and y.numel():
        return _label_conv2d_native.forward(y, *args, ignore_out_of_range)
    if not ignore_out_of_range:
        check_labels(labels, classes_of(weight, dense))
    if not y.numel():
        return y
    function = implementation(reference.label_conv2d, backend)
    if backend == "triton":
        result: Tensor = function(*args)
        return result
    with torch.autocast(weight.device.type, enabled=False):
        return y.copy_(function(*args))


def _backward(
    grad_y: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
    needs: Sequence[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    args = (grad_y, labels, weight, bias, dense, stride, padding, pad_mode, needs)
    grads = _empty_gradients(weight, bias, dense, needs)
    if not grad_y.numel():
        for grad in grads:
            grad.zero_()
    elif backend == "native":
        _label_conv2d_native.backward(grads, *args)
    elif backend == "triton":
        found: tuple[Tensor, Tensor, Tensor] = implementation(reference.label_conv2d_backward, backend)(*args)
        return found
    else:
        # For ``compile`` too: Inductor does not lower aten.convolution_backward of a padded image of any size.
        with torch.autocast(weight.device.type, enabled=False):
            for grad, value in zip(grads, reference.label_conv2d_backward(*args), strict=True):
                grad.copy_(value)
    return grads


def _empty_output(
    labels: Tensor, weight: Tensor, dense: Tensor | None, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    out_h, out_w = ((labels.shape[2 + i] + 2 * padding[i] - weight.shape[2 + i]) // stride[i] + 1 for i in range(2))
    shape, layout = (labels.shape[0], weight.shape[0], out_h, out_w), reference.layout_of(weight, dense)
    return torch.empty(shape, dtype=weight.dtype, device=weight.device, memory_format=layout)


def _empty_gradients(
    weight: Tensor, bias: Tensor | None, dense: Tensor | None, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Places for the gradients of weight, bias and dense; of no size where there is none to compute."""
    grad_weight = torch.empty_like(weight) if needs[0] else weight.new_empty(0)
    grad_bias = torch.empty_like(bias) if needs[1] and bias is not None else weight.new_empty(0)
    if not needs[2] or dense is None:
        return grad_weight, grad_bias, weight.new_empty(0)
    layout = memory_format_of(dense)
    grad_dense = torch.empty(dense.shape, dtype=dense.dtype, device=dense.device, memory_format=layout)
    return grad_weight, grad_bias, grad_dense


def _forward_fake(
    labels: Tensor, weight: Tensor, bias: Any, dense: Tensor | None, stride: Any, padding: Any, *_: Any
) -> Tensor:
    return _empty_output(labels, weight, dense, stride, padding)


def _backward_fake(
    grad_y: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, dense: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *_, needs, _ = rest
    return _empty_gradients(weight, bias, dense, needs)


# --- gradient and double gradient -----------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    labels, weight, bias, dense, stride, padding, pad_mode, _, backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(labels, weight, bias, dense)
    ctx.options = (stride, padding, pad_mode)
    ctx.backend = backend


def _gradient(ctx: Any, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 9
    labels, weight, bias, dense = ctx.saved_tensors
    needs = list(needed_gradients(ctx)[1:4])
    grads = _OP_BACKWARD(grad_y, labels, weight, bias, dense, *ctx.options, needs, ctx.backend)
    return (None, *(grad if needed else None for grad, needed in zip(grads, needs, strict=True)), *(None,) * 5)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.options = inputs[5:9]


def _double_gradient(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Through the reference. The bias has no part in it: the gradients do not depend on it."""
    grad_y, labels, weight, bias, dense = ctx.saved_tensors

    def gradients(grad_y: Tensor, weight: Tensor, dense: Tensor | None) -> tuple[Tensor, ...]:
        return reference.label_conv2d_backward(grad_y, labels, weight, bias, dense, *ctx.options)

    needs = tuple(ctx.needs_input_grad[i] for i in (0, 2, 4))
    grad_grad_y, grad_weight, grad_dense = differentiate(gradients, (grad_y, weight, dense), needs, grads)
    return (grad_grad_y, None, grad_weight, None, grad_dense, *(None,) * 5)


_OP = register("label_conv2d", _forward, _forward_fake, _setup_context, _gradient)
_OP_BACKWARD = register("label_conv2d_backward", _backward, _backward_fake, _setup_context_backward, _double_gradient)
