"""Weighted mean absolute differences in Triton: all pairs in one launch, forward and backward.

    loss = sum over pairs of weight * mean |fake - real|;  d loss / d fake = grad * weight / numel * sign(fake - real)

Bytes: the forward reads fake and real once and writes, for the pairs that want a gradient, the signs at two bits an
element; the backward reads the signs and writes the gradients. One float64 per block is written, and summed by a
second, small kernel.

Plan: one program per block of a pair. Eight neighbours are added in float32 (float64 for float64 tensors), the rest in
float64; the order of all sums is that of the blocks, so every run gives the same bits.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels import _lists
from torchp2p.kernels._index import accumulator
from torchp2p.kernels._launch import Example, launch
from torchp2p.kernels._lists import locate, number_of, pick, pick_double

_GROUP = tl.constexpr(8)  # elements whose signs make one int16
_BLOCK = 4096


def feature_matching_loss_with_signs(
    fake: Sequence[Tensor], real: Sequence[Tensor], weights: Sequence[float], wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor]]:
    """The loss of non-empty pairs, float32 (float64 for float64 pairs), and the signs of those ``wanted``.

    Signs are packed, in the order in which ``torch.empty_like(fake)`` lies in memory; of the other pairs there are
    none. Tensors that do not lie in that order are copied first.
    """
    pairs = [_in_one_order(f, r) for f, r in zip(fake, real, strict=True)]
    sizes = [f.numel() for f, _ in pairs]
    signs = [_packed(f, keep) for f, keep in zip(fake, wanted, strict=True)]
    partials = fake[0].new_empty(_lists.blocks(sizes, _BLOCK), dtype=torch.float64)
    done = 0
    for run in _lists.runs(len(pairs)):
        programs = _lists.blocks(sizes[run], _BLOCK)
        launch(
            _matching_forward_kernel, (programs,),
            tuple(f for f, _ in pairs[run]), tuple(r for _, r in pairs[run]), _int16(signs[run]),
            _lists.run_time(wanted[run]), _lists.run_time(sizes[run]), _lists.doubles(weights[run]), partials, done,
            BLOCK=_BLOCK,
        )  # fmt: skip
        done += programs
    return partials.sum().to(accumulator(fake[0].dtype)), signs


def feature_matching_gradients(
    grad: Tensor, fake: Sequence[Tensor], signs: Sequence[Tensor], weights: Sequence[float]
) -> list[Tensor]:
    """The gradient with respect to each of ``fake``, laid out as it is, for the gradient ``grad`` of the loss."""
    grads = [torch.empty_like(f) for f in fake]
    sizes = [f.numel() for f in fake]
    for run in _lists.runs(len(grads)):
        launch(
            _matching_backward_kernel, (_lists.blocks(sizes[run], _BLOCK),), grad,
            tuple(grads[run]), _int16(signs[run]), _lists.run_time(sizes[run]), _lists.doubles(weights[run]),
            BLOCK=_BLOCK,
        )  # fmt: skip
    return grads


def _packed(fake: Tensor, wanted: bool) -> Tensor:
    """Memory for the signs of a pair, two bits each."""
    return fake.new_empty((fake.numel() + 7) // 8 * 2 if wanted else 0, dtype=torch.int8)


def _in_one_order(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The pair, both dense and in the order of the gradient of ``fake``."""
    if fake.is_contiguous() and real.is_contiguous():
        return fake, real
    order = torch.empty_like(fake, device="meta").stride()
    fake, real = (
        t if t.stride() == order else torch.empty_strided(t.shape, order, dtype=t.dtype, device=t.device).copy_(t)
        for t in (fake, real)
    )
    return fake, real


def _int16(signs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(kept.view(torch.int16) for kept in signs)


@triton.jit(do_not_specialize=["done"])
def _matching_forward_kernel(
    fake,  # tuple of pointers
    real,  # tuple of pointers
    signs,  # tuple of pointers to int16, of anything where no signs are wanted
    wanted,  # tuple of 0 where no signs are wanted, else 1, by run_time
    sizes,  # tuple of the numbers of elements, by run_time
    weights,  # three tuples of floats, by doubles
    partials,  # float64, one for each program of all launches
    done: tl.int32,  # programs of the launches before
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    index, start, size = locate(program, sizes, BLOCK)
    f_block, r_block = pick(fake, index) + start, pick(real, index) + start
    lane, group = tl.arange(0, _GROUP)[None, :], tl.arange(0, BLOCK // _GROUP)
    element = group[:, None] * _GROUP + lane  # (BLOCK / 8, 8)
    if start + BLOCK <= size:  # without a mask the loads are 16 bytes wide
        f, r = tl.load(f_block + element), tl.load(r_block + element)
    else:
        inside = start + element < size
        f, r = tl.load(f_block + element, mask=inside, other=0.0), tl.load(r_block + element, mask=inside, other=0.0)
    if f_block.dtype.element_ty != tl.float64:
        f, r = f.to(tl.float32), r.to(tl.float32)
    groups = tl.sum(tl.abs(f - r), 1).to(tl.float64)  # (BLOCK / 8,)
    share = pick_double(weights, index) / size.to(tl.float64)
    tl.store(partials + done + program, tl.sum(groups) * share)
    if number_of(pick(wanted, index)) > 0:
        # Two bits an element: 1 where fake is larger, 2 where real is, 0 where neither is.
        codes = (f > r).to(tl.int32) + 2 * (f < r).to(tl.int32)
        packed = tl.sum(codes << 2 * lane, 1).to(tl.int16)
        tl.store(pick(signs, index) + start // _GROUP + group, packed, mask=start + group * _GROUP < size)


@triton.jit
def _matching_backward_kernel(
    grad,  # of the loss: one value
    grads,  # tuple of pointers
    signs,  # tuple of pointers to int16
    sizes,  # tuple of the numbers of elements, by run_time
    weights,  # three tuples of floats, by doubles
    BLOCK: tl.constexpr,
):
    index, start, size = locate(tl.program_id(0), sizes, BLOCK)
    share = pick_double(weights, index) / size.to(tl.float64)
    out = pick(grads, index) + start
    acc = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    step = (tl.load(grad).to(tl.float64) * share).to(acc)
    lane, group = tl.arange(0, _GROUP)[None, :], tl.arange(0, BLOCK // _GROUP)
    packed = tl.load(pick(signs, index) + start // _GROUP + group, mask=start + group * _GROUP < size, other=0)
    codes = packed.to(tl.int32)[:, None] >> 2 * lane & 3  # (BLOCK / 8, 8)
    value = ((codes & 1) - (codes >> 1)).to(acc) * step
    element = group[:, None] * _GROUP + lane
    if start + BLOCK <= size:
        tl.store(out + element, value)
    else:
        tl.store(out + element, value, mask=start + element < size)


def examples() -> Iterator[Example]:
    """The features of a discriminator at 2048 x 1024 in three scales, and one pair of images."""
    for dtype in (torch.float32, torch.bfloat16):
        sizes = [(64, 513, 1025), (128, 257, 513), (256, 129, 257), (512, 130, 258)]
        shapes = [(1, c, -(-h // 2**s), -(-w // 2**s)) for s in range(3) for c, h, w in sizes]
        for name, chosen in (("12 features", shapes), ("an image", [(1, 3, 1024, 2048)])):
            fake = [torch.empty(shape, dtype=dtype, device="meta") for shape in chosen]
            weights, wanted = [1.0] * len(fake), [True] * len(fake)
            signs = [_packed(f, True) for f in fake]
            bits = sum(kept.numel() for kept in signs)
            values = sum(f.numel() for f in fake) * dtype.itemsize
            sums = 16 * _lists.blocks([f.numel() for f in fake], _BLOCK)
            forward = partial(feature_matching_loss_with_signs, fake, fake, weights, wanted)
            yield Example(f"forward, {name}, {str(dtype)[6:]}", forward, 2 * values + bits + sums, 2 * values + bits)
            grad = fake[0].new_empty((), dtype=torch.float32)
            backward = partial(feature_matching_gradients, grad, fake, signs, weights)
            yield Example(f"backward, {name}, {str(dtype)[6:]}", backward, values + bits, values + bits)
