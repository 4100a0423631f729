#!/usr/bin/env bash
# The check program on processors that this machine is not, emulated: correctness only, speed says nothing.
#
#     native/tests/emulate.sh arm     aarch64 with dot products (the kernel neon) and without (scalar)
#     native/tests/emulate.sh avx2    x86-64 with AVX2 and FMA but no AVX-512 (avx2), and without AVX2 (scalar)
#     native/tests/emulate.sh avx512  x86-64 with AVX-512 VNNI and VBMI, without VBMI, and without VNNI (avx2)
#
# Each run has to choose the kernel that its processor can run, and to give the logits of the scalar kernel here.
set -euo pipefail
cd "$(dirname "$0")/../.."

need() {
  command -v "$1" >/dev/null || { echo "$1 was not found (Debian: apt install $2)" >&2; exit 1; }
}
build() {  # folder, CMake's options
  local folder=$1
  shift
  cmake -S native/tests -B "$folder" "$@" >"$folder.log" || { cat "$folder.log" >&2; exit 1; }
  cmake --build "$folder" --parallel 2 >"$folder.log" || { cat "$folder.log" >&2; exit 1; }
}
emulated() {  # kernel that must be chosen, emulator, program, further arguments
  local kernel=$1
  shift
  echo "== $*"
  "$@" --quick --fastest "$kernel" | tee build/checks/emulated.txt
  diff <(grep '^logits' build/checks/here.txt) <(grep '^logits' build/checks/emulated.txt)
  echo "the logits are those of the scalar kernel here"
}

need cmake cmake
need c++ g++
mkdir -p build/checks
build build/checks/here
echo "== scalar, here"
build/checks/here/native_checks --quick --kernel scalar models | tee build/checks/here.txt
case ${1:-} in
  arm)
    need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    need qemu-aarch64 qemu-user
    build build/checks/arm -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
      -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
    emulated neon qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu build/checks/arm/native_checks
    emulated scalar qemu-aarch64 -cpu cortex-a53 -L /usr/aarch64-linux-gnu build/checks/arm/native_checks
    ;;
  avx2)
    [ "$(uname -m)" = x86_64 ] || { echo "make test-avx2 needs an x86-64 machine: the program is built for it" >&2; exit 1; }
    need qemu-x86_64 qemu-user
    # qemu emulates AVX2 since 7.2 and AVX-512 not at all, so "max" is a processor with AVX2.
    emulated avx2 qemu-x86_64 -cpu max build/checks/here/native_checks
    emulated scalar qemu-x86_64 -cpu max,-avx2 build/checks/here/native_checks
    ;;
  avx512)
    [ "$(uname -m)" = x86_64 ] || { echo "make test-avx512 needs an x86-64 machine: the program is built for it" >&2; exit 1; }
    # Each processor's other kernels are left out: at Bochs' speed they would take twice the time.
    build build/checks/static -DCMAKE_EXE_LINKER_FLAGS=-static
    emulated avx512vbmi native/tests/bochs.sh corei7_icelake_u build/checks/static/native_checks \
      --kernel avx512vbmi kernels models
    emulated avx512vnni native/tests/bochs.sh corei7_icelake_u,-avx512vbmi build/checks/static/native_checks \
      --kernel avx512vnni kernels models
    emulated avx2 native/tests/bochs.sh corei7_skylake_x build/checks/static/native_checks --kernel avx2 models
    ;;
  *)
    echo "usage: native/tests/emulate.sh arm|avx2|avx512" >&2
    exit 2
    ;;
esac
