#!/bin/sh
# make-venv.sh FOLDER: make a virtual environment with pip in it, or say what is missing.
set -eu
folder=$1
python=${PYTHON:-python3}

fail() {
    echo "$1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "Python 3.11 or newer is needed; '$python' was not found."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed; '$python' is $("$python" -V 2>&1 | cut -d' ' -f2). Try: make PYTHON=python3.12"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c 'import pip' 2>/dev/null; then
    exit 0
fi
echo "Making $folder"
if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$folder"
elif "$python" -c 'import pip, venv' 2>/dev/null; then
    # Debian keeps ensurepip in python3-venv; pip can install itself into the new environment.
    "$python" -m venv --without-pip "$folder"
    "$python" -m pip --disable-pip-version-check -qq --python "$folder/bin/python" install pip
else
    fail "'$python' has neither ensurepip nor pip: install one of them (apt install python3-venv)."
fi
