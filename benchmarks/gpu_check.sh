#!/usr/bin/env bash
# On a machine with a GPU: build, op tests, sanitizers, benchmarks of ops and steps, report. `make gpu-check` calls it.
#
# It works offline, with a Python that has what the package asks for (torch with CUDA), triton, pytest, pytest-xdist,
# hypothesis, matplotlib, pybind11, cmake and ninja: GPU_PYTHON, by default python3. Nothing is installed; what is built
# lies in build/gpu. Rows go to benchmarks/results/, logs to GPU_CHECK_OUT (build/gpu/logs). Every part runs, whatever
# became of the one before, and their limits together are less than ten minutes; the exit status says whether all passed.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${GPU_PYTHON:-python3}
site=$PWD/build/gpu/site
logs=${GPU_CHECK_OUT:-build/gpu/logs}
failed=()
mkdir -p "$logs"
export PYTHONUNBUFFERED=1

# part NAME SECONDS COMMAND...: the command's output goes to a log of this name, its last lines to the screen.
part() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1 || failed+=("$name")
  printf '=== %s: %s seconds\n' "$name" "$((SECONDS - start))"
  tail -n 6 "$logs/$name.log"
}

# The package is taken from where it was built, not from the source tree, which has neither kernels nor _C.
tests() { PYTHONPATH=$site "$python" -P -m pytest -o pythonpath="$site ." -p no:cacheprovider --device cuda "$@"; }
bench() { PYTHONPATH=$site:$PWD "$python" -P -m "benchmarks.$1" --device cuda "${@:2}"; }
export -f tests bench
export python site

sanitized="tests/test_norm_act_groups.py tests/test_instance_edges.py tests/test_label_conv2d.py tests/test_gan_loss.py"
few="native and float32 and (contiguous or edges) and not registered"
op_tests=$(for op in torchp2p/ops/[a-z]*.py; do ls tests/test_"$(basename "$op" .py)"*.py; done | sort -u)

part build 140 env TORCHP2P_NATIVE=ON TORCHP2P_CUDA=ON "$python" setup.py --quiet build --build-base build/gpu --build-lib "$site"
part doctor 15 env PYTHONPATH="$site" "$python" -P -m torchp2p.cli.main doctor
part tests 140 bash -c "tests --numprocesses 8 --dist worksteal $(echo $op_tests)"
for tool in memcheck racecheck; do  # a few cases of every kind of kernel: sanitized kernels are slow
  part "$tool" 35 bash -c "PYTHONPATH=$site compute-sanitizer --tool $tool --error-exitcode 1 $python -P -m pytest \
    -o pythonpath='$site .' --device cuda -k '$few' $(echo $sanitized)"
done
for name in norm_act gan_loss feature_matching_loss instance_avg_pool label_conv2d instance_edges conv_norm_act; do
  part "bench_$name" 15 bash -c "bench bench_$name --quick"
done
part step_pix2pix 45 bash -c "bench bench_step --quick --preset pix2pix --against reference,channels_last,autocast,compile"
part step_pix2pixhd 60 bash -c "bench bench_step --quick --preset pix2pixhd-512p --against reference,channels_last,autocast"
part report 15 env PYTHONPATH="$site:$PWD" "$python" -P -m benchmarks.report

echo "=== ${#failed[@]} parts failed${failed:+: ${failed[*]}}; $SECONDS seconds"
[ ${#failed[@]} -eq 0 ]
