#!/bin/sh
# Install the system packages hil needs on Debian or Ubuntu, or name them when not root.
# ngspice is for circuits only: without it nothing fails, their tests are skipped.
set -eu
python="$1"
missing=""
wanted=""
command -v "$python" >/dev/null || missing="$missing python3"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
command -v ngspice >/dev/null || wanted="$wanted ngspice"
"$python" -c 'import ctypes; ctypes.CDLL("libngspice.so.0")' 2>/dev/null ||
    wanted="$wanted libngspice0"
[ -z "$missing$wanted" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || [ -z "$missing" ]
    # shellcheck disable=SC2086
    [ -z "$missing" ] || apt-get install -qq -y --no-install-recommends $missing
    # shellcheck disable=SC2086
    [ -z "$wanted" ] || apt-get install -qq -y --no-install-recommends $wanted ||
        echo "hil goes on without:$wanted" >&2
else
    [ -z "$wanted" ] || echo "for circuits: sudo apt-get install$wanted" >&2
    [ -z "$missing" ] && exit 0
    echo "hil needs:$missing; install them with: sudo apt-get install$missing" >&2
    exit 2
fi
