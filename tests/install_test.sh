#!/usr/bin/env bash
# Installs the build, then builds and runs the embedding example against the installed package alone, and the
# installed command from another folder. Usage: tests/install_test.sh BUILD CXX
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
build=$1 cxx=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" > /dev/null
cp -r "$source/examples/embed" "$work/example"
cmake -S "$work/example" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_PREFIX_PATH="$work/prefix" > /dev/null
cmake --build "$work/build"
"$work/build/embed" | tee "$work/out"
grep -q '600 prompt tokens, 344 held' "$work/out"

cd "$work"
answer=$("$work/prefix/bin/coppice" generate -p 'The oak lamp costs 48 euro 15.
The oak lamp costs?' --max-tokens 8)
echo "installed command, bundled model:$answer"
[[ -n "$answer" ]]
echo "1 passed, 0 failed"
