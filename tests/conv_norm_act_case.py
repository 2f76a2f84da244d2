"""A convolution with its norm and activation, two ways: ours, and the plain modules of torch in any dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from op_testing import leaf
from torch import Tensor

from torchp2p.ops import Deferred, conv_norm_act


@dataclass(frozen=True)
class Geometry:
    """What the convolution does; ``kernel`` is square."""

    kernel: int = 3
    stride: int | tuple[int, int] = 1
    padding: int = 1
    pad_mode: str = "zeros"
    transposed: bool = False
    output_padding: int | tuple[int, int] = 0

    def __str__(self) -> str:
        kind = "transposed" if self.transposed else "conv"
        stride = self.stride if isinstance(self.stride, int) else "x".join(map(str, self.stride))
        more = f"-more{self.output_padding}" if self.output_padding else ""
        return f"{kind}{self.kernel}-stride{stride}-{self.pad_mode}{self.padding}{more}"

    @property
    def options(self) -> dict[str, object]:
        """As conv_norm_act takes them."""
        return {
            "stride": self.stride, "padding": self.padding, "pad_mode": self.pad_mode,
            "transposed": self.transposed, "output_padding": self.output_padding,
        }  # fmt: skip


REFLECT = Geometry(pad_mode="reflect")
GEOMETRIES = (
    Geometry(),
    REFLECT,
    Geometry(1, 1, 0),
    Geometry(4, 2, 1),
    Geometry(3, (2, 1), 2, "replicate"),
    Geometry(4, 2, 1, "reflect"),
    Geometry(3, 2, 1, transposed=True, output_padding=1),
    Geometry(4, (2, 1), 1, transposed=True, output_padding=(1, 0)),
)


@dataclass(frozen=True)
class Case:
    """One block. The default sizes are odd and fill no register."""

    geometry: Geometry = field(default_factory=Geometry)
    norm: str = "instance"
    act: str = "leaky_relu"
    affine: bool = False
    residual: bool = False
    bias: bool = False
    running: bool = False
    training: bool = True
    inputs: int = 4
    outputs: int = 5
    slope: float = 0.2

    def __str__(self) -> str:
        words = [word for word in ("affine", "residual", "bias", "running") if getattr(self, word)]
        return "-".join([str(self.geometry), self.norm, self.act, *words, *([] if self.training else ["eval"])])


Tensors = dict[str, Tensor | None]
"""By their names as arguments of conv_norm_act; ``x`` is not among them."""

DIFFERENTIABLE = ("weight", "bias", "norm_weight", "norm_bias", "residual")


def random_tensors(case: Case, output_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensors:
    """All tensors of a block but its input."""
    channels = (case.inputs, case.outputs) if case.geometry.transposed else (case.outputs, case.inputs)
    kernel = case.geometry.kernel

    def some(wanted: bool, *shape: int, around: float = 0.0) -> Tensor | None:
        return (around + torch.randn(shape) / 3).to(device, dtype) if wanted else None

    return {
        "weight": some(True, *channels, kernel, kernel),
        "bias": some(case.bias, case.outputs),
        "norm_weight": some(case.affine, case.outputs, around=1.0),
        "norm_bias": some(case.affine, case.outputs),
        "residual": some(case.residual, *output_shape),
        "running_mean": some(case.running, case.outputs),
        "running_var": None if not case.running else 0.5 + torch.rand(case.outputs, dtype=dtype, device=device),
    }


def output_shape(case: Case, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(N, O, H', W') of an input of ``shape``, as torch's own convolution finds it."""
    weight = random_tensors(case, (1,), torch.float32, torch.device("meta"))["weight"]
    return tuple(convolved(case, torch.empty(shape, device="meta"), weight, None).shape)


def convolved(case: Case, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    geometry = case.geometry
    if geometry.transposed:
        options = (geometry.stride, geometry.padding, geometry.output_padding)
        return F.conv_transpose2d(x, weight, bias, *options)
    mode = "constant" if geometry.pad_mode == "zeros" else geometry.pad_mode
    x = F.pad(x, (geometry.padding,) * 4, mode=mode) if geometry.padding else x
    return F.conv2d(x, weight, bias, geometry.stride)


def plain(case: Case, x: Tensor, tensors: Tensors) -> Tensor:
    """The block as separate layers of torch."""
    y = convolved(case, x, tensors["weight"], tensors["bias"])
    weight, bias = tensors["norm_weight"], tensors["norm_bias"]
    running = (tensors["running_mean"], tensors["running_var"])
    if case.norm == "instance":
        y = F.instance_norm(y, *running, weight, bias, use_input_stats=case.training or not case.running)
    elif case.norm == "batch":
        y = F.batch_norm(y, *running, weight, bias, training=case.training or not case.running)
    elif weight is not None and bias is not None:
        y = y * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    if tensors["residual"] is not None:
        y = y + tensors["residual"]
    activate: dict[str, Callable[[Tensor], Tensor]] = {
        "leaky_relu": lambda y: F.leaky_relu(y, case.slope), "relu": F.relu, "tanh": torch.tanh, "none": lambda y: y
    }  # fmt: skip
    return activate[case.act](y)


def ours(case: Case, x: Tensor | Deferred, tensors: Tensors, **more: object) -> Tensor | Deferred:
    """The block as one conv_norm_act."""
    return conv_norm_act(
        x, norm=case.norm, act=case.act, slope=case.slope, training=case.training, **case.geometry.options, **tensors,
        **more,
    )  # fmt: skip


Results = dict[str, Tensor | None]
"""``y`` and, for every input there is, ``grad_<input>``: None where nothing depends on it."""


def results_of(forward: Callable[[Tensor, Tensors], Tensor], x: Tensor, tensors: Tensors, grad: Tensor) -> Results:
    """``forward(x, tensors)`` and its gradients, by autograd."""
    x = leaf(x)
    tensors = {name: leaf(t) if name in DIFFERENTIABLE else t for name, t in tensors.items()}
    y = forward(x, tensors)
    leaves = {"x": x} | {name: tensors[name] for name in DIFFERENTIABLE if tensors[name] is not None}
    grads = torch.autograd.grad(y, list(leaves.values()), grad, allow_unused=True)
    return {"y": y.detach()} | {f"grad_{name}": found for name, found in zip(leaves, grads, strict=True)}


@dataclass(frozen=True)
class Inputs:
    """What a case is run on."""

    x: Tensor
    tensors: Tensors
    grad: Tensor

    def in_dtype(self, dtype: torch.dtype) -> Inputs:
        """The same values in another dtype and in memory of their own."""
        tensors = {name: None if t is None else t.to(dtype, copy=True) for name, t in self.tensors.items()}
        return Inputs(self.x.to(dtype), tensors, self.grad.to(dtype))

    def laid_out(self, layout: Callable[[Tensor], Tensor]) -> Inputs:
        residual = self.tensors["residual"]
        tensors = self.tensors | {"residual": None if residual is None else layout(residual)}
        return Inputs(layout(self.x), tensors, layout(self.grad))


def random_inputs(
    case: Case, dtype: torch.dtype, device: torch.device, shape: tuple[int, int, int] = (2, 7, 9)
) -> Inputs:
    """``shape`` is samples, height, width."""
    x_shape = (shape[0], case.inputs, *shape[1:])
    y_shape = output_shape(case, x_shape)
    x, grad = (torch.randn(each).to(device, dtype) for each in (x_shape, y_shape))
    return Inputs(x, random_tensors(case, y_shape, dtype, device), grad)


def results(block: Callable[..., Tensor], case: Case, inputs: Inputs, **more: object) -> Results:
    """Those of ``plain`` or ``ours``."""
    return results_of(lambda x, tensors: block(case, x, tensors, **more), inputs.x, inputs.tensors, inputs.grad)


# --- chains ----------------------------------------------------------------------------------------------


def chain_inputs(
    cases: list[Case], dtype: torch.dtype, device: torch.device, shape: tuple[int, int, int] = (2, 8, 10)
) -> tuple[list[Inputs], Tensor]:
    """Inputs of every block, of which only the first x is read, and the gradient of the last result."""
    blocks = []
    for case in cases:
        blocks.append(random_inputs(case, dtype, device, shape))
        shape = (shape[0], *blocks[-1].grad.shape[2:])
    return blocks, blocks[-1].grad


def chain_results(
    cases: list[Case], blocks: list[Inputs], grad: Tensor, backend: str | None = None, native: bool = True,
    **more: object,
) -> tuple[Tensor, tuple[Tensor | None, ...]]:  # fmt: skip
    """The result of a chain and the gradients of its first input and of all its tensors."""
    leaves = [blocks[0].x.detach().requires_grad_()]
    h: Tensor | Deferred = leaves[0]
    for place, (case, block) in enumerate(zip(cases, blocks, strict=True)):
        tensors = {
            name: t if t is None or name.startswith("running") else t.detach().requires_grad_()
            for name, t in block.tensors.items()
        }
        leaves += [t for t in tensors.values() if t is not None and t.requires_grad]
        defer = place + 1 < len(cases)
        h = ours(case, h, tensors, backend=backend, defer=defer, **more) if native else plain(case, h, tensors)
    return h.detach(), torch.autograd.grad(h, leaves, grad, allow_unused=True)
