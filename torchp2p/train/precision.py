"""The precisions of a training step (spec section 5.7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

PRECISIONS: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""The dtype of autocast for each; with None there is none, and networks run in the dtype they have."""


def require_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError unless ``precision`` is one of PRECISIONS and ``device`` can train in it.

    Not every processor has convolutions in float16, which torch says only when one is run.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "float16" or device.type == "cuda":
        return
    try:
        image, kernel = (torch.zeros(1, 1, 4, 4, dtype=torch.float16, device=device) for _ in range(2))
        F.conv2d(image, kernel.requires_grad_()).sum().backward()
    except RuntimeError as error:
        raise ValueError(
            f"precision 'float16' cannot run on this {device.type}, take 'bfloat16': {str(error).splitlines()[0]}"
        ) from error
