"""PatchGAN loss reduction in Triton: all maps in one launch, value and slopes in one read of each.

    loss = sum over maps of mean f(p);  slope = f'(p) / numel        (f: the table of torchp2p/reference/gan_loss.py)

Bytes: every map is read once; the slopes (float32, float64 for float64 maps), where wanted, are written once; one
float64 per block of a map is written, and summed by a second, small kernel.

Plan: one program per block of a map. The maps of a discriminator are small (131 x 259 at 2048 x 1024), so arithmetic is
cheap: all of it is done in float64, whose exponential and logarithm are exact to float32 at any logit, and the sums are
the same in every run, for their order is that of the blocks.
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
from torchp2p.kernels._lists import locate, pick

_BLOCK = 1024


def gan_loss_with_slopes(
    maps: Sequence[Tensor], target_is_real: bool, mode: str, for_discriminator: bool, with_slopes: bool
) -> tuple[Tensor, list[Tensor]]:
    """(loss, slopes) of non-empty ``maps`` of one dtype and device.

    The loss is a float32 scalar (float64 for float64 maps) on the device. The slopes, none unless ``with_slopes``,
    have its dtype and lie in memory as their maps do, dense; a map with gaps is copied first, for maps are small.
    """
    acc = accumulator(maps[0].dtype)
    dense = [p.contiguous(memory_format=_layout(p)) for p in maps]
    slopes = [torch.empty_like(p, dtype=acc) for p in dense] if with_slopes else []
    sizes = [p.numel() for p in dense]
    partials = maps[0].new_empty(_lists.blocks(sizes, _BLOCK), dtype=torch.float64)
    # The hinge loss of a generator is linear, as wgan is.
    formula = "wgan" if mode == "hinge" and not for_discriminator else mode
    done = 0
    for run in _lists.runs(len(maps)):
        programs = _lists.blocks(sizes[run], _BLOCK)
        launch(
            _gan_loss_kernel, (programs,),
            tuple(dense[run]), tuple((slopes or dense)[run]), _lists.run_time(sizes[run]), partials, done,
            MODE=formula, REAL=target_is_real, WITH_SLOPES=with_slopes, BLOCK=_BLOCK,
        )  # fmt: skip
        done += programs
    return partials.sum().to(acc), slopes


def _layout(p: Tensor) -> torch.memory_format:
    if p.dim() == 4 and not p.is_contiguous() and p.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


@triton.jit(do_not_specialize=["done"])
def _gan_loss_kernel(
    maps,  # tuple of pointers to maps
    slopes,  # tuple of pointers, of anything unless WITH_SLOPES
    sizes,  # tuple of the numbers of elements, by run_time
    partials,  # float64, one for each program of all launches
    done: tl.int32,  # programs of the launches before
    MODE: tl.constexpr,
    REAL: tl.constexpr,
    WITH_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    index, start, size = locate(program, sizes, BLOCK)
    inside = start + tl.arange(0, BLOCK) < size  # (BLOCK,)
    p = tl.load(pick(maps, index) + start + tl.arange(0, BLOCK), mask=inside, other=0.0).to(tl.float64)
    value, slope = _value_and_slope(p, MODE, REAL)
    share = 1.0 / size.to(tl.float64)
    if WITH_SLOPES:
        tl.store(pick(slopes, index) + start + tl.arange(0, BLOCK), slope * share, mask=inside)
    tl.store(partials + done + program, tl.sum(tl.where(inside, value, 0.0)) * share)


@triton.jit
def _value_and_slope(p, MODE: tl.constexpr, REAL: tl.constexpr):
    """(f, f') of the float64 logits ``p`` of any shape."""
    sign: tl.constexpr = -1.0 if REAL else 1.0
    if MODE == "vanilla":
        # softplus(q) = max(q, 0) + log1p(exp(-|q|)), sigmoid(q) = exp(min(q, 0)) / (1 + exp(-|q|)).
        q = sign * p
        u = tl.exp(-tl.abs(q))
        value = tl.where(q > 0.0, q, 0.0) + _log1p(u)
        slope = sign * tl.where(q > 0.0, 1.0, u) / (1.0 + u)
    elif MODE == "lsgan":
        distance = p - (1.0 if REAL else 0.0)
        value = distance * distance
        slope = 2.0 * distance
    elif MODE == "hinge":
        # Asked as "not beyond": a nan is not beyond the margin.
        margin = 1.0 + sign * p
        value = tl.where(margin <= 0.0, 0.0, margin)
        slope = tl.where(margin <= 0.0, 0.0, sign)
    else:
        value = sign * p
        slope = tl.zeros_like(p) + sign
    return value, slope


@triton.jit
def _log1p(u):
    """log(1 + u) for u in [0, 1], relatively exact: the rounding of 1 + u is made good by what it makes of u."""
    w = 1.0 + u
    return tl.where(w == 1.0, u, tl.log(w) * u / tl.where(w == 1.0, 1.0, w - 1.0))


def examples() -> Iterator[Example]:
    """Three scales of a discriminator at 2048 x 1024, in every mode, and one map without a gradient."""
    for dtype in (torch.float32, torch.bfloat16):
        maps = [torch.empty(1, 1, h, w, dtype=dtype, device="meta") for h, w in ((131, 259), (67, 131), (35, 67))]
        values = sum(p.numel() for p in maps)
        least = values * (dtype.itemsize + 4)
        partials = _lists.blocks([p.numel() for p in maps], _BLOCK) * 8
        for mode in ("vanilla", "lsgan", "hinge", "wgan"):
            call = partial(gan_loss_with_slopes, maps, True, mode, True, True)
            yield Example(f"{mode}, three maps, {str(dtype)[6:]}", call, least + 2 * partials, least)
        call = partial(gan_loss_with_slopes, maps[:1], False, "lsgan", True, False)
        size = maps[0].numel() * dtype.itemsize
        yield Example(f"lsgan, one map, no slopes, {str(dtype)[6:]}", call, size + 2 * 8 * 34, size)
