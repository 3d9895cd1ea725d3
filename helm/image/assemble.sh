#!/bin/sh
# Makes the root file system of the image from the Debian packages of a list, as they are in the archive: no script of
# theirs is run, since those would need a shell and a package manager in the image.
#   assemble.sh LIST ROOT
# It runs while the image is built, as root, where apt knows the archive. What it leaves of each package below
# /var/lib/dpkg/status.d is where scanners look when there is no package manager. A crash ends the build.
set -eu

list=$1
root=$2

mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/var/lib/dpkg/status.d"
for each in bin sbin lib lib64; do ln -s "usr/$each" "$root/$each"; done

cd "$(mktemp -d)"
apt-get update
# shellcheck disable=SC2046 # each name is a word of its own
apt-get -o APT::Sandbox::User=root download $(grep -v '^#' "$list")
for package in *.deb; do
    # Through tar, since dpkg would put a folder where the links above stand.
    dpkg-deb --fsys-tarfile "$package" | tar --extract --preserve-permissions --keep-directory-symlink --directory "$root"
    dpkg-deb --field "$package" >"$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"
done

# What the scripts of base-files and ca-certificates would have made.
cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0:root:/:/usr/sbin/nologin\ngsb:x:65532:65532:gsb:/var/lib/gsb:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\ngsb:x:65532:\n' >"$root/etc/group"

# Manuals and translations; what tells the licences stays. Then the parts of the standard library that would need a
# terminal, Berkeley's database or NIS: the list above is shorter by twelve packages without them.
find "$root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$root/usr/share/man" "$root/usr/share/lintian" "$root/usr/share/locale" "$root/usr/share/pixmaps" "$root/usr/sbin"/*
for module in _curses _curses_panel _dbm nis readline; do
    rm "$root/usr/lib/python3.11/lib-dynload/$module".*.so
done
PYTHONHASHSEED=0 python3.11 -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / "$root/usr/lib/python3.11"

# Nothing belongs to anybody else or can be written by all, as some folders of base-files do and can, but for two places:
# one for temporary files, and one for the bus's data.
chown -hR root:root "$root"
find "$root" \( -perm /6000 -o -type d -perm -o=w \) -exec chmod ug-s,o-w {} +
mkdir -p "$root/etc/gsb" "$root/tmp"
chmod 1777 "$root/tmp"
install -d -m 0700 -o 65532 -g 65532 "$root/var/lib/gsb"
