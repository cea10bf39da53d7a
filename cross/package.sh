#!/usr/bin/env bash
# Makes packages of a built program: cross/package.sh arm64|armhf PROGRAM FOLDER
#
# In FOLDER: rtpt_VERSION_ARCH.deb, rtpt-VERSION-linux-ARCH.tar.gz with the same files for other systems, a list of all
# that the program is made of (CycloneDX) where cargo-cyclonedx is installed, and SHA256SUMS. The same program gives the
# same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "package: $1" >&2
    exit 1
}
[ $# = 3 ] || fail "expected an architecture, a program and a folder: cross/package.sh arm64 PROGRAM FOLDER"
architecture=$1 program=$2 out=$3
case $architecture in
arm64) native=aarch64 runner="cross/emulate.sh cortex-a53" triple=aarch64-unknown-linux-gnu ;;
armhf) native=armv7l runner="cross/emulate.sh cortex-a7" triple=armv7-unknown-linux-gnueabihf ;;
*) fail "unknown architecture $architecture, expected arm64 or armhf" ;;
esac
[ "$(uname -m)" != $native ] || runner=
[ -x "$program" ] || fail "there is no program $program; build it first (make cross-aarch64, make cross-armv7)"
command -v dpkg-deb >/dev/null 2>&1 || fail "dpkg-deb is missing; run: apt install dpkg"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work" rtpt-sbom.json' EXIT
mkdir -p "$out"
# What is there is of an older version, or will be replaced.
rm -f "$out"/rtpt[-_]* "$out/SHA256SUMS"

# What both packages have, as it lies below /usr.
usr=$work/usr
install -Dm 755 "$program" "$usr/bin/rtpt"
mkdir -p "$usr/share/rtpt/bundles"
cp -r models/everyday/bundle "$usr/share/rtpt/bundles/everyday"
cp -r models/everyday/photos "$usr/share/rtpt/bundles/photos"
# shellcheck disable=SC2086 # a program and its arguments, or nothing
{
    $runner "$usr/bin/rtpt" manual "$usr/share/man/man1" || fail "$program does not run here (${runner:-natively})"
    install -d "$usr/share/bash-completion/completions" "$usr/share/zsh/vendor-completions" "$usr/share/fish/vendor_completions.d"
    $runner "$usr/bin/rtpt" completions bash >"$usr/share/bash-completion/completions/rtpt"
    $runner "$usr/bin/rtpt" completions zsh >"$usr/share/zsh/vendor-completions/_rtpt"
    $runner "$usr/bin/rtpt" completions fish >"$usr/share/fish/vendor_completions.d/rtpt.fish"
}
documents=$usr/share/doc/rtpt
# With what they link to, in its place.
for document in README.md ARCHITECTURE.md CONTRIBUTING.md SECURITY.md deny.toml CHANGELOG.md LICENSE-MIT LICENSE-APACHE assets/DejaVuSans-LICENSE.txt docs/*.md benches/results/*.md \
    models/README.md models/everyday/MODEL_CARD.md models/everyday/bundle/labels.txt models/everyday/photos/ATTRIBUTION.md models/demo/MODEL_CARD.md src/limits.rs cross/Dockerfile cross/rtpt.service \
    cross/rtpt.socket cross/rtpt.toml; do
    install -Dm 644 "$document" "$documents/$document"
done
python3 cross/licences.py "$triple" >"$documents/LICENCES"
cat >"$documents/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: rtpt-edge

Files: *
Copyright: 2026 The rtpt-edge developers
License: MIT or Apache-2.0
 LICENSE-MIT and LICENSE-APACHE beside this file.

Files: usr/bin/rtpt
Copyright: 2026 The rtpt-edge developers, and those of the libraries that are linked into it
License: MIT or Apache-2.0, and those of the libraries
 LICENCES beside this file has every library with its licence. The font DejaVu Sans, which is in the program, is under the licence in
 assets/DejaVuSans-LICENSE.txt.

Files: usr/share/rtpt/bundles/photos/*
Copyright: the authors of Caltech-101
License: CC-BY-4.0
 https://creativecommons.org/licenses/by/4.0/legalcode. ATTRIBUTION.md beside the photos names the authors, and says which copies were altered.
COPYRIGHT
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools/bin")
if PATH=$tools:$PATH cargo cyclonedx --version >/dev/null 2>&1; then
    # It writes beside Cargo.toml.
    PATH=$tools:$PATH cargo cyclonedx --quiet --format json --target $triple --override-filename rtpt-sbom >/dev/null
    sed "s,file://$PWD,file:///rtpt-edge,g" rtpt-sbom.json >"$documents/sbom.cdx.json"
    cp "$documents/sbom.cdx.json" "$out/rtpt-$version-linux-$architecture.cdx.json"
else
    echo "package: no list of components, since cargo-cyclonedx is missing; run: make package-tools" >&2
fi

tarball=rtpt-$version-linux-$architecture
mkdir "$work/$tarball"
cp -r "$usr/." "$work/$tarball"
install -Dm 644 cross/rtpt.service cross/rtpt.socket cross/rtpt.toml -t "$work/$tarball/share/rtpt/systemd"

package=$work/deb
mkdir -p "$package/DEBIAN"
cp -r "$usr" "$package/usr"
maintainer=$(sed -n 's/^Maintainer: //p' cross/debian/control)
printf 'rtpt (%s) unstable; urgency=medium\n\n  * CHANGELOG.md says what is new.\n\n -- %s  %s\n' "$version" "$maintainer" \
    "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")" >"$package/usr/share/doc/rtpt/changelog"
gzip -9n "$package"/usr/share/man/man1/*.1 "$package"/usr/share/doc/rtpt/{changelog,LICENCES}
install -Dm 644 cross/rtpt.toml "$package/etc/rtpt/rtpt.toml"
install -Dm 644 cross/rtpt.service cross/rtpt.socket -t "$package/lib/systemd/system"
echo /etc/rtpt/rtpt.toml >"$package/DEBIAN/conffiles"
install -m 755 cross/debian/postinst cross/debian/prerm cross/debian/postrm "$package/DEBIAN"
glibc=$(cross/check-program.sh "$program" "${RTPT_MEGABYTES:-30}" "${RTPT_GLIBC_MOST:-2.31}") || exit 1
glibc=${glibc#*glibc } glibc=${glibc%%,*}
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@GLIBC@/$glibc/" \
    -e "s/@SIZE@/$(du -sk --apparent-size "$package" | cut -f 1)/" cross/debian/control >"$package/DEBIAN/control"
(cd "$package" && find etc lib usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod -R u=rwX,go=rX "$package" "$work/$tarball"
find "$package" "$work/$tarball" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$package" "$out/rtpt_${version}_$architecture.deb" >/dev/null
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -cf - "$tarball" | gzip -9n >"$out/$tarball.tar.gz"
(cd "$out" && find . -maxdepth 1 -name "rtpt[-_]*" -printf '%f\n' | LC_ALL=C sort | xargs sha256sum -- >SHA256SUMS)
echo "package: in $out:"
find "$out" -maxdepth 1 -type f -printf '    %11s  %f\n' | sort -k 2
