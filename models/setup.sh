#!/usr/bin/env bash
# Makes models/.venv with the pinned packages that training, export, attack and the golden scripts use.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "setup.sh: Python 3.10 or newer is needed, found $("$python" --version); set PYTHON to one" >&2
    exit 1
}
stamp=.venv/requirements.installed
if ! cmp -s requirements.txt "$stamp"; then
    "$python" -m venv .venv
    .venv/bin/pip install --quiet --requirement requirements.txt
    cp requirements.txt "$stamp"
fi
echo "models/.venv is ready"
