#!/bin/sh
# install-chromium.sh: see to the browser that the interactive browser's tests drive, or say what to install.
set -eu

for program in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$program" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Chromium"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq chromium >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 || true
    command -v chromium >/dev/null && exit 0
fi
echo "Chromium is needed for the long tests: sudo apt install chromium" >&2
exit 1
