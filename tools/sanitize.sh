#!/bin/sh
# The kernels under NVIDIA's compute-sanitizer, on a machine with a GPU.
#
#   sh tools/sanitize.sh                         memcheck, the GPU suite's small cases
#   sh tools/sanitize.sh racecheck               races in shared memory, fewer cases (it is slower)
#   sh tools/sanitize.sh memcheck tests/kernels/test_cascade.py -k "features and bf16"     pytest's own words
#   FILES="tests/kernels/test_decode.py ..." sh tools/sanitize.sh      these files only: a share for each of several GPUs
#
# torch hands out pieces of large blocks, where a read past a tensor's end still hits memory that is its own. So its cache
# is turned off: every tensor is an allocation, and a byte outside is an error. ptxas, which Triton starts, is not checked.
# A CUDA graph cannot be captured so, and tests that capture one are left out.
#
# All files take about 20 minutes on an H200.
#
# Give it the GPU to itself, one process at a time: memcheck keeps 71 GB of its memory after the 64 tests of Hopper decode.
# Six such processes filled an H200, and tests then ended for lack of memory, with memcheck saying that it "didn't track the launch" of
# some kernels. Ten, with 13 tests each, were more than the 80 GB of an H100 too: there 1 test of 15 came out wrong, and one hung, with no
# error reported. With enough memory nothing is found: alone 64 tests pass with 0 errors, and ten processes side by side made 36,000
# launches under memcheck with the same bits in each. Nor was an output wrong in the 241 tests of the six that found memory.
#
# synccheck cannot be used: it takes warps that wait at different barriers for a fault, ours (it does not return) and
# FlashAttention-3's (12,896 errors, then a launch failure).
#
# racecheck reports two things in paged_prefill_kernel that are none. Its consumers both clean a tile of values, each before its
# own product: they write the same. And warp_specialize hands its partitions their arguments in shared memory, behind barriers
# that the tool does not know.
#
# Exit status: pytest's, the largest of all files; 86 when the sanitizer found something; 2 when this machine has no sanitizer or no GPU.
set -u
cd "$(dirname "$0")/.."

tool=${1:-memcheck}
[ $# -gt 0 ] && shift
python=${PYTHON:-.venv/bin/python}
[ -n "$(command -v "$python")" ] || python=python3

sanitizer=$(command -v compute-sanitizer)
for place in "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer \
    "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"/nvidia/*/bin/compute-sanitizer; do
    [ -z "$sanitizer" ] && [ -x "$place" ] && sanitizer=$place
done
if [ -z "$sanitizer" ]; then
    echo "compute-sanitizer is not on this machine. It comes with the CUDA toolkit, or: pip install nvidia-cuda-sanitizer-api"
    exit 2
fi
if "$python" -c 'import kernels, sys; sys.exit(not kernels.INTERPRET)'; then
    echo "The sanitizer needs a CUDA GPU."
    exit 2
fi

# One dtype shows where a kernel reads and writes. Large cases, batches of hundreds (whose reference takes minutes here) and tests
# without a launch are left out.
case $tool in
memcheck) cases='not (fp16 or fp32 or large or real or beyond or several or contract or runtime or reference or pool or mutant or captur or emulated or compile or 150 or 600)' ;;
*) cases='right and bf16 and (ragged or chunk or GQA or 80)' ;;
esac

sanitize() {
    echo "$sanitizer --tool $tool, pytest $*"
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --target-processes application-only --error-exitcode 86 \
        "$python" -m pytest -q -p no:cacheprovider -m "not slow" "$@"
}

if [ $# -gt 0 ]; then
    sanitize "$@"
    exit
fi
# A process for each file, so that what memcheck keeps does not add up.
worst=0
for file in ${FILES:-tests/kernels/test_*.py}; do
    sanitize "$file" -k "$cases"
    status=$?
    [ $status -eq 5 ] && status=0 # no test of this file is among the cases
    [ $status -gt $worst ] && worst=$status
done
exit $worst
