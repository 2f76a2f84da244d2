"""Learning rates as factors of the first one, by epoch (spec section 5.3)."""

from __future__ import annotations

import math

LR_POLICIES = ("linear", "linear_hd", "step", "cosine", "constant")


def lr_factor(
    policy: str,
    epoch: int,
    n_epochs: int,
    n_epochs_decay: int,
    lr_decay_iters: int = 50,
    zero_lr_last_epoch: bool = False,
) -> float:
    """The factor of the learning rate in ``epoch``: a function of the epoch, so resuming needs no state.

    Args:
        policy: ``linear`` falls over the last ``n_epochs_decay`` epochs and is above 0 in the last;
            with ``zero_lr_last_epoch`` it is one epoch ahead and ends at 0, as in the original since 2020.
            ``linear_hd`` is that of pix2pixHD. ``step`` takes a tenth every ``lr_decay_iters`` epochs,
            ``cosine`` falls to 0 at ``n_epochs`` and rises again, as torch's does, ``constant`` stays.
        epoch: counted from 1.
        n_epochs, n_epochs_decay: epochs at the full rate, and epochs of the fall.

    Raises:
        ValueError: an unknown policy.
    """
    if policy == "linear":
        ahead = 1 if zero_lr_last_epoch else 0
        return 1.0 - max(0, epoch + ahead - n_epochs) / (n_epochs_decay + 1)
    if policy == "linear_hd":
        return 1.0 - max(0, epoch - 1 - n_epochs) / n_epochs_decay if n_epochs_decay else 1.0
    if policy == "step":
        return float(0.1 ** ((epoch - 1) // lr_decay_iters))
    if policy == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / max(n_epochs, 1)))
    if policy == "constant":
        return 1.0
    raise ValueError(f"lr_policy must be one of {', '.join(LR_POLICIES)}, got {policy!r}")
