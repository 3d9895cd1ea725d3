#!/bin/sh
# Runs a program in the mounted image as a pod of the chart would: as user 65532 without any capability, on a root file
# system that nobody can write, with a deployment to read, a volume for data and a /tmp that goes with the chamber.
#   env -i NAME=VALUE... unshare --mount --propagation private sh chamber.sh ROOT DEPLOYMENT DATA PROGRAM...
# It becomes the program, so signals reach that and the mounts end with it.
set -eu

root=$1
deployment=$2
data=$3
shift 3
inside=$PATH
PATH=/usr/sbin:/usr/bin:/sbin:/bin

mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$deployment" "$root/etc/gsb"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/etc/gsb"
mount --bind "$data" "$root/var/lib/gsb"
mount -o remount,bind,nosuid,nodev,noexec "$root/var/lib/gsb"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec,size=64m tmpfs "$root/tmp"
mount --rbind /proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid,noexec tmpfs "$root/dev"
for device in null urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done

PATH=$inside
exec /usr/bin/setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
    /usr/sbin/chroot --userspec=65532:65532 --groups= "$root" "$@"
