#!/bin/sh
# Install the system packages hil needs on Debian or Ubuntu, or name them when not root.
set -eu
python="$1"
missing=""
command -v "$python" >/dev/null || missing="$missing python3"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
else
    echo "hil needs:$missing; install them with: sudo apt-get install$missing" >&2
    exit 2
fi
