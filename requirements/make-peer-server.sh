#!/bin/sh
# make-peer-server.sh FOLDER JOBS: build llama.cpp's HTTP server into the environment FOLDER, from the
# sources that its llama_cpp_python came with: the same version, and the same CFLAGS and CXXFLAGS.
# Its web pages are left out, since they would have to be downloaded.
set -eu
folder=$1 jobs=$2
cmake=${CMAKE:-cmake}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$("$folder/bin/python" -c 'from importlib.metadata import version; print(version("llama_cpp_python"))')
"$folder/bin/python" -m pip download --disable-pip-version-check -q --no-deps \
    --no-binary llama-cpp-python --dest "$work" "llama_cpp_python==$version"
mkdir "$work/sources"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work/sources" --strip-components=1

"$cmake" -S "$work/sources/vendor/llama.cpp" -B "$work/build" -G "Unix Makefiles" \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; exit 1; }
"$cmake" --build "$work/build" --target llama-server --parallel "$jobs" >"$work/log" 2>&1 ||
    { tail -n 40 "$work/log" >&2; exit 1; }
cp "$work/build/bin/llama-server" "$folder/bin/"
