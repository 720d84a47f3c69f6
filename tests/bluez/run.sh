#!/bin/sh
# gammawear bridge against real BlueZ: bluetoothd and the Linux kernel in a virtual machine, our wearables on a virtual
# radio on this one. Needs Debian, .venv (make test makes it), and: apt install qemu-system-x86 mmdebstrap mosquitto
# The image is built once, from the package sources of this machine. Building it needs root, or user namespaces.
#
#   tests/bluez/run.sh               # emulated: needs no virtualization
#   ACCEL=kvm tests/bluez/run.sh     # with it
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gammawear/bluez-vm

build() (
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # Only unpacked: no package's scripts are run, nothing is started.
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        sort -u |
        mmdebstrap --quiet --variant=extract --format=tar \
            --include=linux-image-amd64,bluez,dbus,busybox-static,kmod '' "$work/root.tar" -
    mkdir "$work/root"
    tar -x -f "$work/root.tar" -C "$work/root" --no-same-owner --exclude='./dev/*' --exclude='*/perl*' \
        --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale'
    root=$work/root
    mv "$root"/boot/vmlinuz-* "$work/vmlinuz"
    rm -rf "$root/boot"
    # What the kernel needs for Bluetooth on a serial port, the network, and the host's disk.
    find "$root/lib/modules" -path '*/kernel/*' -name '*.ko*' | grep -vE \
        '/kernel/(arch|crypto|lib|net/(9p|bluetooth|core|rfkill)|fs/(9p|fscache|netfs)|drivers/(bluetooth|virtio|net/(virtio_net|net_failover)\.))' |
        xargs rm
    cp "$here/init" "$root/init"
    chmod 755 "$root/init"
    (cd "$root" && find . | bin/busybox cpio -o -H newc 2>/dev/null) > "$work/system.cpio"
    mkdir -p "$cache"
    mv "$work/vmlinuz" "$work/system.cpio" "$cache/"
)

[ "$cache/system.cpio" -nt "$here/init" ] || build
export GAMMAWEAR_BLUEZ_VM="$cache"
export CI=1 # what is missing is a failure
cd "$here/../.."
exec .venv/bin/python -m pytest -rP --timeout 1500 tests/bluez/over_bluez.py "$@"
