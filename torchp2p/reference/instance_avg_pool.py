"""Instance-wise average pooling in plain PyTorch: each pixel becomes the mean over the pixels of its id.

F'(n, c, p) = mean over {q : ids(n, q) = ids(n, p)} of F(n, c, q), sample by sample (spec section 7.1). As a
matrix over the pixels of a sample the operator P is symmetric (its entry p, q is 1 / size of the id where p and
q share one, else 0) and idempotent. So its gradient is P itself, and that gradient's gradient is P once more:
there is no other formula to write down.
"""

from __future__ import annotations

import torch
from torch import Tensor


def instance_avg_pool(x: Tensor, ids: Tensor, channels_last: bool) -> Tensor:
    """Pool x (N, C, H, W) over ids (N, 1, H, W); means are taken in float64, the result has the dtype of x.

    The result is dense, channels_last or contiguous as the argument says.
    """
    n, c, h, w = x.shape
    values, ranks = torch.unique(ids.to(torch.int64), return_inverse=True)
    samples = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    segment = (samples * len(values) + ranks).flatten()  # an id has a segment in every sample
    pixels = x.permute(0, 2, 3, 1).reshape(n * h * w, c).double()
    sums = pixels.new_zeros(n * len(values), c).index_add(0, segment, pixels)
    counts = torch.bincount(segment, minlength=n * len(values)).clamp(min=1)
    means = (sums / counts.unsqueeze(1)).to(x.dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return means[segment].view(n, h, w, c).permute(0, 3, 1, 2).contiguous(memory_format=layout)
