"""Triton kernels, one file an op. Imports torch and triton only, and those when a kernel is asked for."""

from __future__ import annotations

import importlib.util
import os


def unavailable(device_type: str) -> str:
    """Why Triton cannot run on a device of this type (``"cuda"``, ``"cpu"``, ...); empty if it can.

    A driver that fails to initialise is a reason, not a crash.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if device_type not in ("cuda", "xpu"):
        return f"Triton kernels run on GPU tensors, not {device_type}, or under TRITON_INTERPRET=1"
    from triton.runtime import driver

    try:
        driver.active.get_current_device()
    except Exception as error:  # whatever a driver raises while it starts is the reason we report
        return f"the Triton driver does not start: {error}"
    return ""
