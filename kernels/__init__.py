"""Triton kernels, one file an op. Imports torch and triton only, and those when a kernel is asked for.

``<op>.py`` has functions with the names, arguments and returns of ``torchp2p.reference.<op>``; ``_*.py`` is what
kernels share; ``aot.py`` compiles them for GPUs that are not there.
"""

from __future__ import annotations

import importlib.util
import os


def unavailable(device_type: str) -> str:
    """Why Triton cannot run on a device of this type (``"cuda"``, ``"cpu"``, ...); empty if it can.

    A driver that fails to initialise is a reason, not a crash. ``TRITON_INTERPRET=1`` has to be set before the first
    kernel is imported: from then on kernels are what it said.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if interpreted and device_type in ("cpu", "cuda", "xpu"):
        return ""
    if device_type not in ("cuda", "xpu"):
        return f"Triton kernels run on GPU tensors, not {device_type}, or under TRITON_INTERPRET=1"
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:  # whatever a driver raises while it starts is the reason we report
        return f"the Triton driver does not start: {error}"
    return ""
