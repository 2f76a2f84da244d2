"""Where native kernels run and why not: on the CPU, on a CUDA device, and without CUDA on a CUDA tensor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from torchp2p.ops import _dispatch, _native
from torchp2p.ops._dispatch import BackendUnavailableError

WITHOUT = SimpleNamespace()
NO_DRIVER = "the CUDA driver does not start: no CUDA-capable device is detected (cudaErrorNoDevice)"


@pytest.fixture(autouse=True)
def _fresh_reasons():
    _native._cuda_unavailable_on.cache_clear()
    _dispatch._warned.clear()
    yield
    _native._cuda_unavailable_on.cache_clear()


def built_with_cuda(reason: str) -> SimpleNamespace:
    return SimpleNamespace(cuda_unavailable=lambda device: reason and f"{reason} on {device}")


def test_a_module_without_cuda_says_so_for_cuda_tensors_and_serves_the_cpu(monkeypatch):
    monkeypatch.setattr(_native, "C", WITHOUT)
    assert _native.unavailable("cuda", torch.float32) == "torchp2p._C was built without CUDA"
    assert _native.unavailable("cpu", torch.float32) == ""


def test_no_module_is_the_reason_on_every_device(monkeypatch):
    monkeypatch.setattr(_native, "C", None)
    monkeypatch.setattr(_native, "REASON", "it is not there")
    assert _native.unavailable("cuda", torch.float32) == _native.cuda_unavailable() == "it is not there"


def test_a_module_with_cuda_asks_the_driver_about_the_current_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(_native, "C", built_with_cuda("no kernel for this GPU"))
    assert _native.unavailable("cuda", torch.float32) == "no kernel for this GPU on 3"
    _native._cuda_unavailable_on.cache_clear()
    monkeypatch.setattr(_native, "C", built_with_cuda(""))
    assert _native.unavailable("cuda", torch.float32) == ""


@pytest.mark.parametrize(
    ("module", "reason"),
    [(WITHOUT, "torchp2p._C was built without CUDA"), (built_with_cuda(NO_DRIVER), NO_DRIVER)],
    ids=["built without CUDA", "no driver"],
)
def test_cuda_tensors_fall_back_to_triton_with_one_message_and_a_request_by_name_raises(monkeypatch, module, reason):
    monkeypatch.setattr(_native, "C", module)
    monkeypatch.setattr(_dispatch, "triton_unavailable", lambda op, device_type: "")
    with pytest.warns(RuntimeWarning) as said:
        chosen = [_dispatch._choose("norm_act", "cuda", torch.float32, None) for _ in range(3)]
    assert chosen == ["triton"] * 3
    assert len(said) == 1
    assert str(said[0].message).startswith(f"norm_act uses the 'triton' backend: native: {reason}")
    with pytest.raises(BackendUnavailableError) as error:
        _dispatch._choose("norm_act", "cuda", torch.float32, "native")
    assert f"backend 'native' cannot run: {reason}" in str(error.value)


def test_other_devices_have_no_native_kernels():
    assert _native.unavailable("xpu", torch.float32) == "torchp2p._C has no kernels for xpu tensors"


def test_a_call_runs_where_its_tensor_is_and_in_the_stream_that_torch_uses_there(monkeypatch):
    assert _native.place(torch.zeros(1)) == (-1, 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1000 + device))
    on_device = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 2))
    assert _native.place(on_device) == (2, 1002)


def test_a_cuda_error_is_raised_with_the_words_of_the_launch(monkeypatch):
    module = SimpleNamespace(
        status_name=lambda status: "CUDA error", cuda_error=lambda: "sum on a grid of 1x1x1 blocks"
    )
    monkeypatch.setattr(_native, "C", module)
    words = "native norm_act failed with status CUDA error on x: sum on a grid of 1x1x1 blocks"
    with pytest.raises(RuntimeError, match=words):
        _native.raise_for_status(3, "norm_act", "x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_the_module_loads_and_explains_itself_where_there_is_no_driver():
    reason = _native.cuda_unavailable()
    assert reason.startswith(("the CUDA driver does not start: ", "torchp2p._C was built without CUDA"))


@pytest.mark.skipif(hasattr(_native.C, "cuda_unavailable"), reason="the module was built with CUDA")
def test_a_device_named_to_a_module_without_cuda_is_refused():
    x = torch.zeros(1, 1, 2, 2)
    options = (0, 0, 1, 1e-5, 0, 0.2, 0, 0, False)
    status = _native.C.norm_act_forward(
        x.data_ptr(), 0, 0, 0, x.data_ptr(), 0, 0, 0, x.shape, x.stride(), x.stride(), *options, 0, 0
    )
    assert _native.C.status_name(status) == "built without CUDA"
