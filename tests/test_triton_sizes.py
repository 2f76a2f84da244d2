"""A new image size compiles nothing: what the compiler sees of a launch is the same for images of any size."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Kernels are Python functions in this process, so another one asks the compiler. Each op takes (n, h, w).
SCRIPT = """
import sys
import torch
from functools import partial
from torchp2p.kernels import aot
from torchp2p.kernels._launch import Example
from torchp2p.kernels.feature_matching_loss import feature_matching_gradients, feature_matching_loss_with_signs
from torchp2p.kernels.gan_loss import gan_loss_with_slopes
from torchp2p.kernels.instance_avg_pool import instance_avg_pool
from torchp2p.kernels.instance_edges import instance_edges
from torchp2p.kernels.label_conv2d import label_conv2d, label_conv2d_backward

empty = partial(torch.empty, device="meta")
integers = partial(torch.empty, device="meta", dtype=torch.int32)

def instance_avg_pool_calls(n, h, w):
    instance_avg_pool(empty(n, 3, h, w), integers(n, 1, h, w), False)

def instance_edges_calls(n, h, w):
    instance_edges(integers(n, 1, h, w), torch.float32)

def gan_loss_calls(n, h, w):
    gan_loss_with_slopes([empty(n, 1, h, w), empty(n, 1, 1, w)], True, "vanilla", True, True)

def feature_matching_loss_calls(n, h, w):
    fake = [empty(n, 4, h, w), empty(n, 8, 1, w)]
    _, signs = feature_matching_loss_with_signs(fake, fake, [float(h), 1 / w], [True, h % 2 == 0])
    feature_matching_gradients(empty(()), fake, [empty(n * h * w, dtype=torch.int8)] * 2, [1.0, 2.0])

def label_conv2d_calls(n, h, w):
    layer = (integers(n, 1, h, w), empty(8, 6, 3, 3), None, empty(n, 1, h, w), (1, 1), (1, 1), "reflect")
    label_conv2d(*layer)
    label_conv2d_backward(empty(n, 8, h, w), *layer, [True] * 3)

def seen_by_the_compiler(size):
    example = Example("", partial(globals()[sys.argv[1] + "_calls"], *size), 0, 0)
    return [aot.compilation_of(launch, 90).key for launch in aot.launches_of(example)]

sizes = [(1, 16, 32), (2, 17, 31), (3, 5, 16), (1, 512, 1024), (16, 4, 4)]
first, *others = (seen_by_the_compiler(size) for size in sizes)
assert first
for size, other in zip(sizes[1:], others):
    assert other == first, (size, [pair for pair in zip(first, other) if pair[0] != pair[1]])
"""


@pytest.mark.parametrize(
    "op", ["instance_avg_pool", "instance_edges", "gan_loss", "feature_matching_loss", "label_conv2d"]
)
def test_images_of_any_size_share_one_compilation(op):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, op],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
