"""Triton's interpreter, which runs kernels as Python on the CPU, made right and quick where Triton 3.6 is neither.

- ``range(0, n)`` of a run-time ``n`` asks an array of one element for its int, which numpy 2.4 gives of scalars only.
- float32 to bfloat16 cuts the lower bits off. GPUs, and here torch, round to the nearest.
- Each call of one kernel function by another replaces the whole language anew, and integer arithmetic is done twice
  to find overflows: without either it runs three times as fast.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl


def repair() -> None:
    """Change the interpreter of this process."""
    from triton.runtime import interpreter

    patch_tensor, convert_float = interpreter._patch_lang_tensor, interpreter._convert_float

    def patch_tensor_and_index(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def convert_float_rounding(values: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source, target) == (tl.float32, tl.bfloat16):
            return torch.as_tensor(values).bfloat16().view(torch.uint16).numpy()
        if (source, target) == (tl.bfloat16, tl.float32):
            return torch.as_tensor(values).view(torch.bfloat16).float().numpy()
        return convert_float(values, source, target, mode)

    ready: set[str] = set()

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        module = self.fn.__module__
        if module.startswith("triton.") and module not in ready:  # the launch has prepared all but the standard library
            interpreter._patch_lang(self.fn)
            ready.add(module)
        return self.rewrite()(*arguments, **options)

    interpreter._patch_lang_tensor, interpreter._convert_float = patch_tensor_and_index, convert_float_rounding
    interpreter.InterpretedFunction.__call__ = call
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
