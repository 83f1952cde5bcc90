#!/bin/busybox sh
# The first and only program of the guest: it runs the scripts that come over the second serial
# line, one after the other, and says how each ended.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/sbin:/bin HOME=/ TZ=UTC
mkdir -p /dev/mapper
ln -s /proc/mounts /etc/mtab
# The kernel asks for algorithms by itself.
echo /bin/modprobe > /proc/sys/kernel/modprobe
for module in virtio_scsi sd_mod dm_mod dm_integrity md_mod raid0 raid1 raid10 raid456; do
  modprobe $module || echo "no module $module"
done
exec 3<>/dev/ttyS1
stty raw -echo <&3
echo "#ready" >&3
: > /tmp/script
while IFS= read -r line <&3; do
  if [ "$line" = "#run" ]; then
    sh -c '. /lib.sh; . /tmp/script' </dev/null >&3 2>&1
    echo "#end $?" >&3
    : > /tmp/script
  else
    printf '%s\n' "$line" >> /tmp/script
  fi
done
