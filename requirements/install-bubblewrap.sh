#!/bin/sh
# install-bubblewrap.sh: see to the program that confines what models run, or say what is used instead.
set -eu

[ "$(uname -s)" = Linux ] || exit 0
command -v bwrap >/dev/null && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing bubblewrap"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq bubblewrap >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq bubblewrap; } >/dev/null 2>&1 || true
    command -v bwrap >/dev/null && exit 0
fi
cat >&2 <<'END'
bubblewrap is not installed. Programs that models run are then confined by Landlock (Linux 6.12 or
later), or not run at all. To have it: sudo apt install bubblewrap, or sudo dnf install bubblewrap
END
