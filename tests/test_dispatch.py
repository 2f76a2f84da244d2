"""Which backend runs an op, who may say so, and what happens where the one asked for cannot run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

import torchp2p
from torchp2p.ops import BackendUnavailableError, _dispatch, _library, _native, gan_loss, norm_act

X = torch.randn(2, 3, 5, 6)
POINTWISE = {"norm": "none", "act": "relu"}


def chosen(x=X, asked=None):
    return _dispatch.choose("norm_act", x, asked)


@pytest.fixture
def no_native(monkeypatch):
    """As in an installation without the compiled module."""
    monkeypatch.setattr(_native, "C", None)
    monkeypatch.setattr(_native, "REASON", "it is not there")
    monkeypatch.setattr(_dispatch, "_warned", set())


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(_dispatch, "compile_unavailable", lambda device_type: "there is no compiler")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter: what is decided at import is decided again."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


# --- the order when nobody asks --------------------------------------------------------------------------


def test_native_code_runs_where_it_can():
    assert _native.REASON == ""
    assert chosen() == "native"


def test_compile_is_next(no_native):
    with pytest.warns(RuntimeWarning):
        assert chosen() == "compile"


def test_the_reference_is_last(no_native, no_compiler):
    with pytest.warns(RuntimeWarning):
        assert chosen() == "reference"


def test_tensors_without_memory_take_the_reference_silently(recwarn):
    assert chosen(torch.empty(1, 1, 1, 1, device="meta")) == "reference"
    y = norm_act(torch.empty(2, 3, 4, 5, device="meta"), pad=1)
    assert y.shape == (2, 3, 6, 7)
    assert not recwarn


def test_triton_is_not_considered_for_cpu_tensors_unless_asked(no_native):
    assert all("triton" not in reason for reason in _dispatch.first_available("norm_act", "cpu", torch.float32)[1])


def test_the_fallback_gives_the_same_numbers(no_native, no_compiler):
    x = X.clone().requires_grad_()
    with pytest.warns(RuntimeWarning):
        y = norm_act(x, pad=1)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    expected = norm_act(x, pad=1, backend="reference")
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.square().sum(), x)[0])


# --- asking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["native", "compile", "reference"])
def test_the_argument_decides(name):
    assert chosen(asked=name) == name


def test_the_context_decides_where_there_is_no_argument():
    with torchp2p.backend("reference"):
        assert chosen() == "reference"
        assert chosen(asked="native") == "native"
        with torchp2p.backend("compile"):
            assert chosen() == "compile"
        with torchp2p.backend(None):
            assert chosen() == "native"
        assert chosen() == "reference"
    assert chosen() == "native"


def test_the_context_ends_where_an_error_ends_it():
    with pytest.raises(KeyError), torchp2p.backend("reference"):
        raise KeyError
    assert chosen() == "native"


def test_a_compiled_function_follows_the_context():
    torch._dynamo.reset()
    names = []

    def spy(graph, inputs):
        names.extend(node.args[-1] for node in graph.graph.nodes if node.target is torch.ops.torchp2p.norm_act)
        return graph

    compiled = torch.compile(lambda x: norm_act(x), backend=spy, fullgraph=True)
    compiled(X)
    with torchp2p.backend("reference"):
        compiled(X)
    compiled(X)
    assert names == ["native", "reference"]


@pytest.mark.parametrize("name", ["cuda", "", "Native"])
def test_an_unknown_name_is_refused_with_the_names_that_exist(name):
    sentence = f"backend must be one of native, triton, compile, reference or None, got {name!r}"
    for ask in (lambda: norm_act(X, backend=name), lambda: gan_loss(X, True, backend=name)):
        with pytest.raises(ValueError, match=sentence):
            ask()
    with pytest.raises(ValueError, match=sentence), torchp2p.backend(name):
        pass


# --- a request that cannot be met ------------------------------------------------------------------------


def test_a_request_that_cannot_be_met_raises_with_the_reason(no_native):
    for ask in (lambda: norm_act(X, backend="native"), lambda: gan_loss(X, True, backend="native")):
        with pytest.raises(BackendUnavailableError, match="backend 'native' cannot run: it is not there"):
            ask()


def test_a_context_that_cannot_be_met_raises_in_the_op(no_native):
    with torchp2p.backend("native"), pytest.raises(BackendUnavailableError, match="it is not there"):
        norm_act(X)


def test_compile_without_a_compiler_raises_with_the_reason(monkeypatch, tmp_path):
    _dispatch.compile_unavailable.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = "torch.compile needs a C++ compiler on the CPU, and 'g++' is not on the PATH"
    with pytest.raises(BackendUnavailableError, match=re.escape(reason)):
        norm_act(X, backend="compile")
    _dispatch.compile_unavailable.cache_clear()


def test_an_unavailable_backend_is_a_runtime_error():
    assert issubclass(BackendUnavailableError, RuntimeError)


# --- what is said ----------------------------------------------------------------------------------------


def test_a_fallback_is_said_once_per_op_with_its_reason(no_native, no_compiler, recwarn):
    for _ in range(3):
        norm_act(X)
        gan_loss(X, True)
    reasons = "native: it is not there; compile: there is no compiler"
    assert [(warning.category, str(warning.message)) for warning in recwarn] == [
        (RuntimeWarning, f"norm_act uses the 'reference' backend: {reasons}"),
        (RuntimeWarning, f"gan_loss uses the 'reference' backend: {reasons}"),
    ]


def test_nothing_is_said_where_a_backend_was_asked_for(no_native):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        norm_act(X, backend="reference")
        with torchp2p.backend("reference"):
            norm_act(X)


def test_in_strict_mode_a_fallback_raises_and_a_request_does_not(no_native, no_compiler, monkeypatch):
    monkeypatch.setenv("TORCHP2P_STRICT", "1")
    sentence = "norm_act: would fall back to reference: native: it is not there; compile: there is no compiler"
    with pytest.raises(BackendUnavailableError, match=sentence):
        norm_act(X)
    assert norm_act(X, backend="reference").shape == X.shape
    monkeypatch.setenv("TORCHP2P_STRICT", "0")
    with pytest.warns(RuntimeWarning, match="uses the 'reference' backend"):
        norm_act(X)


def test_a_whole_graph_compiles_where_the_op_falls_back(no_native):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: norm_act(2 * x, pad=1), backend="aot_eager", fullgraph=True)
    with pytest.warns(RuntimeWarning, match="norm_act uses the 'compile' backend: native: it is not there"):
        y = compiled(X)
    torch.testing.assert_close(y, norm_act(2 * X, pad=1, backend="reference"))


# --- the compile backend ---------------------------------------------------------------------------------


def test_the_compile_backend_compiles_every_combination_of_options():
    torch._dynamo.reset()

    def scaled(x, option):
        return (x * len(option),)

    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for index in range(12):
        assert torch.equal(_library.compiled(scaled)(X, "o" * index)[0], X * index)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 12


# --- a fresh interpreter ---------------------------------------------------------------------------------

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise {error}
sys.meta_path.insert(0, Hidden())
"""
ABSENT = HIDE.format(module="torchp2p._C", error="ModuleNotFoundError('No module', name=name)")
BROKEN = HIDE.format(module="torchp2p._C", error="ImportError('libgomp.so.1: cannot open shared object file')")
NO_KERNELS = HIDE.format(module="torchp2p.kernels", error="ModuleNotFoundError('No module', name=name)")


def test_importing_prints_nothing_compiles_nothing_and_touches_no_gpu():
    done = run_python("""
        import sys, torch
        import torchp2p
        assert not torch.cuda.is_initialized()
        for heavy in ("torch._dynamo", "torch._inductor", "triton", "PIL", "numpy.testing"):
            assert heavy not in sys.modules, heavy
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("hide", "reason"),
    [
        (ABSENT, "torchp2p was installed without its compiled module (pure Python install)"),
        (BROKEN, "the compiled module torchp2p._C does not load: libgomp.so.1: cannot open shared object file"),
    ],
    ids=["absent", "broken"],
)
def test_without_the_compiled_module_everything_still_runs(hide, reason):
    done = run_python(hide + textwrap.dedent(f"""
        import warnings, torch
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            import torchp2p
        from torchp2p.ops import _dispatch, norm_act, gan_loss
        _dispatch.compile_unavailable = lambda device_type: "not asked here"
        x = torch.arange(24.).view(1, 2, 3, 4).requires_grad_()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            y = norm_act(x, pad=1)
            gan_loss([y], True, "vanilla").backward()
        assert [str(w.message) for w in said] == [
            op + " uses the 'reference' backend: native: {reason}; compile: not asked here"
            for op in ("norm_act", "gan_loss")
        ], [str(w.message) for w in said]
        try:
            norm_act(x, backend="native")
        except torchp2p.BackendUnavailableError as error:
            assert {reason!r} in str(error)
        else:
            raise AssertionError
        print(y.sum().item(), x.grad.abs().sum().item())
    """))  # fmt: skip
    assert done.returncode == 0, done.stderr
    x = torch.arange(24.0).view(1, 2, 3, 4).requires_grad_()
    y = norm_act(x, pad=1)
    gan_loss([y], True, "vanilla").backward()
    expected = [y.sum().item(), x.grad.abs().sum().item()]
    assert [float(word) for word in done.stdout.split()] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_source_tree_that_is_not_installed_has_no_triton_and_says_so():
    done = run_python(NO_KERNELS + textwrap.dedent("""
        from torchp2p.ops import _dispatch
        print(_dispatch.triton_unavailable("norm_act", "cuda"))
    """))  # fmt: skip
    assert done.stdout.startswith("there is no torchp2p.kernels: the package runs from a source tree"), done.stderr


TRITON_REFUSED = """
import torch, torchp2p
from torchp2p.ops import norm_act
try:
    norm_act(torch.zeros(1, 1, 2, 2), backend="triton")
except torchp2p.BackendUnavailableError as error:
    print(error)
from torchp2p.ops import _dispatch
for op in torchp2p.ops.__all__:
    if op.islower() and op not in ("algorithm", "backend"):
        print(op, _dispatch.why_not(op, "triton", "cuda", torch.float32))
"""
NO_TRITON = HIDE.format(module="triton", error="ModuleNotFoundError('No module', name=name)")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and Triton runs on it")
def test_triton_without_a_gpu_and_without_the_interpreter_says_why_for_every_op():
    done = run_python(TRITON_REFUSED, TRITON_INTERPRET="0")
    refused, *rows = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    reason = "Triton kernels run on GPU tensors, not cpu, or under TRITON_INTERPRET=1"
    assert refused == f"norm_act: backend 'triton' cannot run: {reason}"
    assert len(rows) == 7
    for row in rows:
        assert "the Triton driver does not start: " in row or "there is no Triton kernel for" in row


def test_a_driver_that_fails_to_start_is_a_reason():
    done = run_python("""
        from triton.runtime import driver
        class Broken:
            def get_current_device(self):
                raise OSError("libcuda.so.1: cannot open shared object file")
        driver.set_active(Broken())
        from torchp2p.ops import _dispatch
        print(_dispatch.triton_unavailable("norm_act", "cuda"))
    """, TRITON_INTERPRET="0")  # fmt: skip
    assert done.stdout == "the Triton driver does not start: libcuda.so.1: cannot open shared object file\n", (
        done.stderr
    )


@pytest.mark.parametrize(
    ("variable", "value", "printed"),
    [
        ("TORCHP2P_BACKEND", "reference", "reference"),
        ("TORCHP2P_BACKEND", "", "native"),
        (
            "TORCHP2P_BACKEND",
            "cudnn",
            "TORCHP2P_BACKEND must be one of native, triton, compile, reference or None, got 'cudnn'",
        ),
    ],
)
def test_the_environment_decides_where_nobody_else_does(variable, value, printed):
    code = """
        import torch, torchp2p
        from torchp2p.ops import _dispatch
        x = torch.zeros(1, 1, 2, 2)
        with torchp2p.backend("native"):
            assert _dispatch.choose("norm_act", x, None) == "native"
        assert _dispatch.choose("norm_act", x, "native") == "native"
        try:
            print(_dispatch.choose("norm_act", x, None))
        except ValueError as error:
            print(error)
    """
    done = run_python(code, **{variable: value})
    assert (done.stdout.strip(), done.stderr) == (printed, "")
