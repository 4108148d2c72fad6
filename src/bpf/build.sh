#!/usr/bin/env bash
# Compiles connect.bpf.c to the object that is committed beside it, or to the
# file named. The same bytes wherever the checkout lies, with this compiler:
# Debian's clang-19 and llvm-19 (bookworm and trixie have 19.1.7).
#
#     apt-get install --no-install-recommends clang-19 llvm-19
#     src/bpf/build.sh
set -euo pipefail
here=$(dirname "$0")
out=$(realpath -m "${1:-$here/connect.bpf.o}")
cd "$here"

# -mcpu=v2: what every kernel with a ring buffer runs. -g for BTF, which the
# loader relocates by; of the rest of the debug information nothing is kept.
clang-19 -target bpfel -mcpu=v2 -O2 -g -std=gnu11 -Wall -Wextra -Werror \
    -fno-ident -ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
    -c connect.bpf.c -o "$out"
# The relocations of BTF itself are for linkers; there is nothing to link.
llvm-objcopy-19 --strip-debug --remove-section=.rel.BTF --remove-section=.rel.BTF.ext \
    --remove-section=.llvm_addrsig "$out"
