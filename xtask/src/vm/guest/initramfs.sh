#!/bin/busybox sh
# The guest's first program: finds the disk, puts the image, this run's files and the kernel's modules together, goes on
# in there. Nothing but busybox is here.
export PATH=/bin
# busybox finds itself there.
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
fail() { echo "vm: $1"; echo o > /proc/sysrq-trigger; sleep 60; }

mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    [ -e "$module" ] && { insmod "$module" || echo "vm: cannot load $module"; }
done
turns=0
until [ -b /dev/vda ] && [ -b /dev/vdb ] && [ -b /dev/vdc ]; do
    turns=$((turns + 1))
    [ $turns -gt 200 ] && fail "the disks did not come"
    sleep 0.1
done
mount -t ext4 /dev/vda /root || fail "the image cannot be mounted"
# Before anything is unpacked: the checkout may be below /tmp.
mount -t tmpfs -o mode=1777 tmp /root/tmp
tar -x -f /dev/vdb -C /root || fail "this run's files cannot be unpacked"
tar -x -f /dev/vdc -C /root || fail "the modules cannot be unpacked"
umount /proc /sys
mount -o move /dev /root/dev
exec switch_root /root /vm/init
