#!/usr/bin/env bash
# Packs the program that was built into target/deb/ashlar_VERSION_ARCHITECTURE.deb. Manual pages and completions come
# from the program itself. The same commit and compiler make the same package.
#
#   ASHLAR=target/debug/ashlar scripts/deb.sh    # another program than the release's
set -eu
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
program=${ASHLAR:-$target/release/ashlar}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
root=$target/deb/root
umask 022
rm -rf "$root"

put() { # mode file place
  install -D --mode "$1" "$2" "$root/$3"
}

# Names of versions are the program's own strings: the newest of them is what it needs.
libc=$(grep --text --only-matching 'GLIBC_2\.[0-9]*' "$program" | sed 's/GLIBC_//' | sort --version-sort | tail -n 1)
put 755 "$program" usr/bin/ashlar
strip --strip-all --remove-section=.comment "$root/usr/bin/ashlar"

"$program" man "$root/usr/share/man/man1"
gzip --best --no-name "$root"/usr/share/man/man1/*
completions() { # shell place
  mkdir -p "$root/usr/share/${2%/*}"
  "$program" completions "$1" >"$root/usr/share/$2"
}
completions bash bash-completion/completions/ashlar
completions zsh zsh/vendor-completions/_ashlar
completions fish fish/vendor_completions.d/ashlar.fish

put 644 packaging/ashlar.service usr/lib/systemd/system/ashlar.service
put 640 packaging/ashlar.env etc/ashlar/ashlar.env
doc=usr/share/doc/ashlar
put 644 packaging/disks.conf.example $doc/examples/disks.conf
put 644 packaging/debian/copyright $doc/copyright
put 644 openapi/openapi.json $doc/openapi.json
for file in docs/*.md; do
  put 644 "$file" "$doc/${file##*/}"
done
put 644 CHANGELOG.md $doc/CHANGELOG.md
gzip --best --no-name "$root/$doc/openapi.json" "$root/$doc/CHANGELOG.md"
{
  printf 'ashlar (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n' "$version"
  printf ' -- The Ashlar authors <ashlar@localhost>  %s\n' "$(date --rfc-email --utc --date "@$SOURCE_DATE_EPOCH")"
} | gzip --best --no-name >"$root/$doc/changelog.gz"

size=$(du --summarize --apparent-size --block-size 1024 "$root" | cut -f 1)
mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@INSTALLED_SIZE@/$size/; s/@LIBC@/$libc/" \
  packaging/debian/control >"$root/DEBIAN/control"
install --mode 644 packaging/debian/conffiles "$root/DEBIAN/conffiles"
install --mode 755 packaging/debian/{postinst,prerm,postrm} "$root/DEBIAN"
(cd "$root" && find usr -type f -print0 | sort --zero-terminated | xargs -0 md5sum >DEBIAN/md5sums)

package=$target/deb/ashlar_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package"
