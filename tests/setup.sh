#!/bin/sh
# Installs what the tests drive beside rtpt itself: ffmpeg as a camera, Chromium as a phone, curl as the documents do.
# setup.sh installs them from Debian's packages where it may, else says what to install;
# setup.sh --check only says what is missing; setup.sh --fuzz does it for the fuzzer, which needs a C++ compiler alone.
set -eu
packages=
if [ "${1:-}" = --fuzz ]; then
    command -v c++ >/dev/null 2>&1 || packages=" g++"
else
    command -v curl >/dev/null 2>&1 || packages="$packages curl"
    command -v ffmpeg >/dev/null 2>&1 || packages="$packages ffmpeg"
    command -v chromium >/dev/null 2>&1 || packages="$packages chromium fonts-dejavu-core"
    command -v chromedriver >/dev/null 2>&1 || packages="$packages chromium-driver"
fi
[ -n "$packages" ] || exit 0
if [ -n "${RTPT_TESTS_WITHOUT:-}" ] && [ "${1:-}" != --fuzz ]; then
    echo "tests: going without$packages, as RTPT_TESTS_WITHOUT says; the tests that need them are passed over" >&2
    exit 0
fi
advice="install$packages (Debian, Ubuntu: sudo apt install$packages)"
[ "${1:-}" = --fuzz ] || advice="$advice, or pass their tests over with RTPT_TESTS_WITHOUT='curl ffmpeg chromium'"
fail() {
    echo "tests: $1; $advice" >&2
    exit 1
}
[ "${1:-}" != --check ] || fail "something is missing"
command -v apt-get >/dev/null 2>&1 || fail "there is no apt-get here"
if [ "$(id -u)" = 0 ]; then
    become=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    become="sudo -n"
else
    fail "no right to install packages here"
fi
echo "tests: installing$packages" >&2
log=$(mktemp)
# shellcheck disable=SC2086 # lists of words
{ $become apt-get update && $become env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; } \
    >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "apt-get could not install them"; }
rm -f "$log"
