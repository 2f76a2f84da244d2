"""The grid on the CPU finds the faults that kernels have, each planted in a small .cu file; and sound ones pass."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cuda_on_cpu.build import build_library, unavailable
from cuda_on_cpu.harness import Grid, GridFault

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())

HEAD = """
#include "reduce.h"
#include "vec.h"
using namespace torchp2p;
#define ENTRY(kernel, ...)                                                                             \\
  extern "C" __attribute__((visibility("default"))) int run_##kernel(float* x, float* y, int n) {      \\
    return int(on_device(0, [&] { return launch(#kernel, kernel, __VA_ARGS__, nullptr, x, y, n); }));   \\
  }                                                                                                     \\
  extern "C" __attribute__((visibility("default"))) const char* words_##kernel() { return cuda_error(); }
"""

KERNELS = {
    # Sums x into y[0] as it should be done.
    "sound": ("Grid{dim3(1), dim3(96)}", """
        float sum = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
        sum = block_reduce(sum, Add{});
        if (threadIdx.x == 0) y[0] = sum;
    """),
    # The same by packs of 16 bytes, with the tail in dynamic shared memory.
    "packs": ("Grid{dim3(1), dim3(64), 16}", """
        TORCHP2P_DYNAMIC_SHARED(float, tail);
        const int whole = n / 4 * 4;
        if (threadIdx.x < unsigned(n - whole)) tail[threadIdx.x] = x[whole + threadIdx.x];
        float sum = 0;
        for (int i = threadIdx.x * 4; i < whole; i += blockDim.x * 4)
          for (float value : load_pack(x + i).values) sum += value;
        __syncthreads();
        if (threadIdx.x == 0)
          for (int i = 0; i < n - whole; ++i) sum += tail[i];
        sum = block_reduce(sum, Add{});
        if (threadIdx.x == 0) y[0] = sum;
    """),
    "reads_past_the_end": ("Grid{dim3(1), dim3(32)}", "y[0] = x[n + 4 + threadIdx.x];"),
    "reads_before_the_start": ("Grid{dim3(1), dim3(32)}", "y[0] = x[-2000];"),
    "writes_past_the_end": ("Grid{dim3(1), dim3(32)}", "if (threadIdx.x == 5) y[8] = 1;"),
    "writes_just_past_the_end": ("Grid{dim3(1), dim3(32)}", "x[n] = 1;"),
    "writes_before_the_start": ("Grid{dim3(1), dim3(32)}", "y[-1] = 1;"),
    "reads_nowhere": ("Grid{dim3(1), dim3(32)}", "y[0] = *reinterpret_cast<float*>(64);"),
    "leaves_a_shared_array": ("Grid{dim3(1), dim3(32)}", """
        TORCHP2P_SHARED(float, parts, 32);
        parts[threadIdx.x + 4] = x[0];
        __syncthreads();
        if (threadIdx.x == 0) y[0] = parts[4];
    """),
    "leaves_dynamic_shared_memory": ("Grid{dim3(1), dim3(32), 32 * sizeof(float)}", """
        TORCHP2P_DYNAMIC_SHARED(float, parts);
        parts[threadIdx.x + 1] = x[0];
        __syncthreads();
        if (threadIdx.x == 0) y[0] = parts[1];
    """),
    "barrier_in_a_branch": ("Grid{dim3(1), dim3(64)}", """
        if (threadIdx.x < 40) __syncthreads();
        y[0] = x[0];
    """),
    "return_before_a_barrier": ("Grid{dim3(1), dim3(64)}", """
        if (threadIdx.x == 63) return;
        block_reduce(x[0], Add{});
    """),
    "shuffle_in_a_branch": ("Grid{dim3(1), dim3(64)}", """
        if (threadIdx.x % 32 < 8) y[0] = shuffle_down(x[0], 1);
    """),
    "shuffle_without_the_own_lane": ("Grid{dim3(1), dim3(32)}", "y[0] = __shfl_sync(0x0000ffffu, x[0], 0);"),
    "no_barrier_before_reading": ("Grid{dim3(1), dim3(64)}", """
        TORCHP2P_SHARED(float, parts, 64);
        parts[threadIdx.x] = 0;
        __syncthreads();
        parts[threadIdx.x] = x[threadIdx.x];
        y[threadIdx.x % 8] = parts[threadIdx.x ^ 32];
    """),
    "no_barrier_before_writing_again": ("Grid{dim3(1), dim3(64)}", """
        TORCHP2P_SHARED(float, value, 1);
        float sum = 0;
        for (int turn = 0; turn < 3; ++turn) {
          if (threadIdx.x == 0) value[0] = x[turn];
          __syncthreads();
          sum += value[0];
        }
        if (threadIdx.x == 40) y[0] = sum;
    """),
    "no_warp_barrier": ("Grid{dim3(1), dim3(32)}", """
        TORCHP2P_SHARED(float, parts, 32);
        parts[threadIdx.x] = 0;
        __syncwarp();
        parts[threadIdx.x] = x[threadIdx.x];
        if (threadIdx.x < 8) y[threadIdx.x] = parts[threadIdx.x + 1];
    """),
    "blocks_in_no_order": ("Grid{dim3(8), dim3(32)}", "if (threadIdx.x == 0) y[0] = 2 * y[0] + x[blockIdx.x];"),
    "reads_shared_memory_never_written": ("Grid{dim3(1), dim3(32)}", """
        TORCHP2P_SHARED(int, counts, 32);
        y[0] = counts[3] > 0;
    """),
    "reads_dynamic_shared_memory_never_written": ("Grid{dim3(1), dim3(32), 64}", """
        TORCHP2P_DYNAMIC_SHARED(float, parts);
        y[0] = parts[3];
    """),
    "reads_what_the_block_before_left": ("Grid{dim3(2), dim3(32)}", """
        TORCHP2P_SHARED(float, parts, 1);
        if (blockIdx.x == 0) parts[0] = x[0];
        y[blockIdx.x] = parts[0];
    """),
    "too_many_threads": ("Grid{dim3(1), dim3(1056)}", "y[0] = x[0];"),
    "too_much_shared_memory": ("Grid{dim3(1), dim3(32), 1 << 20}", "y[0] = x[0];"),
    "warp_operations": ("Grid{dim3(1), dim3(64)}", """
        const int lane = threadIdx.x % 32;
        const unsigned odd = __ballot_sync(kAllLanes, lane % 2);
        const int above = __shfl_up_sync(kAllLanes, lane, 1), other = __shfl_xor_sync(kAllLanes, lane, 5);
        const int in_eight = __shfl_down_sync(kAllLanes, lane, 3, 8), third = __shfl_sync(kAllLanes, lane, 3);
        const bool right = odd == 0xaaaaaaaau && above == (lane ? lane - 1 : 0) && other == (lane ^ 5) && third == 3 &&
                           in_eight == (lane % 8 < 5 ? lane + 3 : lane) && __any_sync(kAllLanes, lane == 9) &&
                           !__all_sync(kAllLanes, lane == 9);
        const int half = lane < 16 ? __shfl_sync(0x0000ffffu, lane, 7) : __shfl_sync(0xffff0000u, lane, 25);
        TORCHP2P_SHARED(int, wrong, 1);
        if (threadIdx.x == 0) wrong[0] = 0;
        __syncthreads();
        atomicAdd(wrong, int(!right || half != (lane < 16 ? 7 : 25)));
        __syncthreads();
        if (threadIdx.x == 0) y[0] = float(wrong[0] + n + int(x[0])) - float(n + int(x[0]));
    """),
}  # fmt: skip


@pytest.fixture(scope="module", params=[(), ("-DCUDA_ON_CPU_PORTABLE",)], ids=["here", "portable"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ctypes.CDLL, Grid]:
    folder = tmp_path_factory.mktemp("planted")
    kernels = "".join(
        f"__global__ void {name}(float* x, float* y, int n) {{{body}}}\nENTRY({name}, {grid})\n"
        for name, (grid, body) in KERNELS.items()
    )
    (folder / "planted.cu").write_text(HEAD + kernels)
    built = build_library(folder / "planted.cu", folder / "planted.so", *request.param)
    return ctypes.CDLL(str(built)), Grid(built)


@pytest.fixture
def run(library: tuple[ctypes.CDLL, Grid]) -> Callable[[str], torch.Tensor]:
    """Runs a kernel on x of 70 values and y of 8."""
    code, grid = library

    def call(name: str) -> torch.Tensor:
        x, y = torch.arange(70.0), torch.zeros(8)
        entry, words = getattr(code, f"run_{name}"), getattr(code, f"words_{name}")
        words.restype = ctypes.c_char_p

        def on_copies(where: Callable[[int], int | None]) -> str:
            addresses = [ctypes.c_void_p(where(tensor.data_ptr())) for tensor in (x, y)]
            return words().decode() if entry(*addresses, len(x)) else ""

        error = grid.run(on_copies, {tensor.data_ptr(): tensor.nbytes for tensor in (x, y)}, set())
        if error:
            raise RuntimeError(error)
        return y

    return call


@pytest.mark.parametrize("name", ["sound", "packs"])
def test_a_sound_kernel_gives_its_result(name: str, run: Callable[[str], torch.Tensor]) -> None:
    assert run(name)[0].item() == sum(range(70))


def test_warp_operations_do_what_cuda_says(run: Callable[[str], torch.Tensor]) -> None:
    assert run("warp_operations")[0].item() == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reads_past_the_end", "out of bounds: .* bytes after the end of a buffer of 280, thread .* of block"),
        ("reads_before_the_start", "out of bounds: .* before a buffer of 280"),
        ("writes_past_the_end", r"out of bounds: 0 bytes after the end of a buffer of 32, thread \(5, 0, 0\)"),
        ("reads_nowhere", "out of bounds: address 0x40, near no buffer"),
        ("leaves_a_shared_array", r"out of bounds: 0 bytes after the end of a buffer of 128, thread \(28, 0, 0\)"),
        ("leaves_dynamic_shared_memory", "out of bounds: 0 bytes after the end of a buffer of 128"),
        ("barrier_in_a_branch", "a barrier is not reached by all threads"),
        ("return_before_a_barrier", "a warp operation waits for lanes that do not come|a barrier is not reached"),
        ("shuffle_in_a_branch", "a warp operation waits for lanes that do not come"),
        ("shuffle_without_the_own_lane", "whose mask leaves out the lane that calls it"),
        ("too_many_threads", "the device takes no such grid"),
        ("too_much_shared_memory", "with 1048576 bytes of shared memory: invalid argument"),
    ],
)
def test_a_fault_becomes_the_launch_error_that_names_it(
    name: str, words: str, run: Callable[[str], torch.Tensor]
) -> None:
    with pytest.raises(RuntimeError, match=words) as error:
        run(name)
    assert str(error.value).startswith(f"{name} on a grid of ")


@pytest.mark.parametrize("name", ["writes_just_past_the_end", "writes_before_the_start"])
def test_a_write_beside_a_buffer_is_found_afterwards(name: str, run: Callable[[str], torch.Tensor]) -> None:
    with pytest.raises(GridFault, match="something was written beside a buffer"):
        run(name)


@pytest.mark.parametrize(
    "name",
    [
        "no_barrier_before_reading",
        "no_barrier_before_writing_again",
        "no_warp_barrier",
        "blocks_in_no_order",
        "reads_shared_memory_never_written",
        "reads_dynamic_shared_memory_never_written",
        "reads_what_the_block_before_left",
    ],
)
def test_what_depends_on_the_order_or_on_memory_never_written_is_found(
    name: str, run: Callable[[str], torch.Tensor]
) -> None:
    with pytest.raises(GridFault, match="differs with the order of the threads"):
        run(name)


def test_the_grid_is_sound_again_after_a_fault(run: Callable[[str], torch.Tensor]) -> None:
    with pytest.raises(RuntimeError):
        run("barrier_in_a_branch")
    assert run("sound")[0].item() == sum(range(70))


def test_a_kernel_that_uses_what_the_grid_lacks_does_not_compile(tmp_path: Path) -> None:
    source = tmp_path / "lacking.cu"
    source.write_text(HEAD + "__global__ void k(float* x) { __shared__ float y[2]; x[0] = y[0]; }")
    with pytest.raises(RuntimeError, match="__shared__"):
        build_library(source, tmp_path / "lacking.so")


def test_without_a_compiler_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    assert unavailable() == "no C++ compiler: 'g++' is not on the PATH"
