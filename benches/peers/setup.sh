#!/usr/bin/env bash
# Makes target/peers/venv with the pinned packages that the comparisons with other runtimes use.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "setup.sh: Python 3.10 or newer is needed, found $("$python" --version); set PYTHON to one" >&2
    exit 1
}
venv=target/peers/venv
if ! cmp -s benches/peers/requirements.txt "$venv/requirements.installed"; then
    mkdir -p target/peers
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement benches/peers/requirements.txt
    cp benches/peers/requirements.txt "$venv/requirements.installed"
fi
echo "$venv is ready"
