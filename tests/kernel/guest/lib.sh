# What the scripts of the cases are written with. D0, D1, ... are the disks that the case attached;
# PATTERN is the pattern that writes take their bytes from; OUT is what the host reads.
set -e

fail() { echo "FAILED: $*"; exit 1; }

# Waits up to ten seconds for a command to succeed.
wait_for() {
  for _ in $(seq 200); do
    if "$@"; then return 0; fi
    usleep 50000
  done
  fail "waited in vain: $*"
}

# The block device of a logical unit, once it is there.
unit() {
  wait_for eval "[ -b /dev/\$(ls /sys/bus/scsi/devices/0:0:0:$1/block 2>/dev/null || echo none) ]"
  echo "/dev/$(ls "/sys/bus/scsi/devices/0:0:0:$1/block")"
}

# The kernel forgets a disk, before it is pulled out.
forget() {
  blockdev --flushbufs "$(unit "$1")"
  echo 1 > "/sys/bus/scsi/devices/0:0:0:$1/delete"
}

sectors_of() { blockdev --getsz "$1"; }

# put DEVICE GENERATION SECTOR SECTORS: writes a piece of the pattern past the page cache.
put() {
  dd if="$PATTERN" of="$1" bs=1M iflag=direct,skip_bytes,count_bytes,fullblock \
    oflag=direct,seek_bytes conv=notrunc skip=$((($3 + $2 * 2048) * 512)) \
    seek=$(($3 * 512)) count=$(($4 * 512)) 2>/tmp/dd || { cat /tmp/dd; fail "put $*"; }
}

# What was written before is durable when this returns.
sync_to() { dd if=/dev/null of="$1" count=0 conv=notrunc,fsync 2>/dev/null; }

# give DEVICE: the whole content to the host.
give() {
  dd if="$1" of="$OUT" bs=1M iflag=direct oflag=direct conv=notrunc 2>/tmp/dd \
    || { cat /tmp/dd; fail "give $1"; }
  echo "sectors $(sectors_of "$1")"
}

# errors DEVICE: every block that cannot be read past the page cache, a line each:
# "bad SECTOR SECTORS ERROR".
errors() { walk "$1" ""; }

# salvage DEVICE: the same, and what can be read to the host.
salvage() {
  walk "$1" "$OUT"
  echo "sectors $(sectors_of "$1")"
}
walk() {
  to=$2
  block=$(($(blockdev --getss "$1") / 512))
  total=$(sectors_of "$1")
  at=0
  while [ "$at" -lt "$total" ]; do
    length=$((total - at < 2048 ? total - at : 2048))
    errors_within "$1" "$at" "$length"
    at=$((at + length))
  done
}
errors_within() {
  # A buffer of a mebibyte is aligned, as dm-integrity wants it; a small one is not, and is EIO.
  if dd if="$1" of="${to:-/dev/null}" bs=1M iflag=direct,skip_bytes,count_bytes,fullblock \
    skip=$(($2 * 512)) count=$(($3 * 512)) \
    ${to:+oflag=direct,seek_bytes conv=notrunc seek=$(($2 * 512))} 2>/tmp/dd; then return 0; fi
  if [ "$3" -le "$block" ]; then
    case "$(cat /tmp/dd)" in
      *multibyte*) error=EILSEQ ;;
      *"nput/output"*) error=EIO ;;
      *) error=$(head -n 1 /tmp/dd) ;;
    esac
    echo "bad $2 $3 $error"
    return 0
  fi
  local half=$(($3 / 2 / block * block))
  [ "$half" -gt 0 ] || half=$block
  errors_within "$1" "$2" "$half"
  errors_within "$1" $(($2 + half)) $(($3 - half))
}

# errors_around DEVICE SECTOR SECTORS: the same as errors, quicker where they are among these sectors.
errors_around() {
  to=
  block=$(($(blockdev --getss "$1") / 512))
  errors_within "$1" 0 "$2"
  for at in $(seq "$2" "$block" $(($2 + $3 - 1))); do errors_within "$1" "$at" "$block"; done
  errors_within "$1" $(($2 + $3)) $(($(sectors_of "$1") - $2 - $3))
}

# namespace NUMBER: the block device of a namespace of the NVMe controller, once it is there.
namespace() {
  modprobe nvme
  wait_for eval "namespace_of $1 > /tmp/namespace"
  cat /tmp/namespace
}
namespace_of() {
  for path in /sys/block/nvme0n*; do
    if [ "$(cat "$path/nsid" 2>/dev/null)" = "$1" ]; then echo "/dev/${path##*/}"; return 0; fi
  done
  return 1
}

# scsi_disk VENDOR: the block device of the SCSI disk of this vendor, once it is there.
scsi_disk() {
  wait_for eval "scsi_disk_of $1 > /tmp/scsi_disk"
  cat /tmp/scsi_disk
}
scsi_disk_of() {
  for path in /sys/block/sd*; do
    if grep -q "$1" "$path/device/vendor" 2>/dev/null; then echo "/dev/${path##*/}"; return 0; fi
  done
  return 1
}

# target_up BYTES BLOCK TYPE: a disk of the kernel's own SCSI target. Its data are the file /tmp/target,
# its protection information, of this type, is the file /tmp/target.protection.
TARGET=/sys/kernel/config/target
TARGET_NAME=naa.6001405000000001
target_up() {
  modprobe target_core_file
  modprobe tcm_loop
  [ -d $TARGET ] || mount -t configfs configfs /sys/kernel/config
  truncate -s "$1" /tmp/target
  mkdir -p $TARGET/core/fileio_0/disk $TARGET/loopback/$TARGET_NAME/tpgt_1/lun/lun_0
  echo "fd_dev_name=/tmp/target,fd_dev_size=$1" > $TARGET/core/fileio_0/disk/control
  echo 1 > $TARGET/core/fileio_0/disk/enable
  echo "$2" > $TARGET/core/fileio_0/disk/attrib/block_size
  echo "$3" > $TARGET/core/fileio_0/disk/attrib/pi_prot_type
  echo 1 > $TARGET/core/fileio_0/disk/attrib/pi_prot_format
  echo $TARGET_NAME > $TARGET/loopback/$TARGET_NAME/tpgt_1/nexus
  ln -s $TARGET/core/fileio_0/disk $TARGET/loopback/$TARGET_NAME/tpgt_1/lun/lun_0/disk
}
target_down() {
  rm $TARGET/loopback/$TARGET_NAME/tpgt_1/lun/lun_0/disk
  rmdir $TARGET/loopback/$TARGET_NAME/tpgt_1/lun/lun_0 $TARGET/loopback/$TARGET_NAME/tpgt_1
  rmdir $TARGET/loopback/$TARGET_NAME $TARGET/core/fileio_0/disk
  rm /tmp/target /tmp/target.protection
}

# The array does nothing in the background any more.
md_idle() {
  # Without redundancy there is nothing to do, and no such file.
  [ ! -e /sys/block/md0/md/sync_action ] || [ "$(cat /sys/block/md0/md/sync_action)" = idle ]
}
md_settled() { for _ in 1 2 3 4 5 6; do wait_for md_idle; done; usleep 100000; wait_for md_idle; }

# check: reads the whole array and compares its copies or parity.
check() {
  md_settled
  echo check > /sys/block/md0/md/sync_action
  md_settled
  echo "mismatch_cnt $(cat /sys/block/md0/md/mismatch_cnt)"
}

# A member is being filled, slowly.
slowly() {
  echo 1 > /sys/block/md0/md/sync_speed_min
  echo 1500 > /sys/block/md0/md/sync_speed_max
}
md_recovers() {
  case "$(cat /sys/block/md0/md/sync_completed)" in
    none | delayed | "0 / "*) return 1 ;;
  esac
}

# begin_recovery DEVICE, begin_replacement OLD NEW: the array is about half filled when this returns.
begin_recovery() { slowly; mdadm /dev/md0 --quiet --add "$1"; wait_for md_recovers; usleep 1500000; }
begin_replacement() {
  slowly
  mdadm /dev/md0 --quiet --add "$2"
  mdadm /dev/md0 --quiet --replace "$1" --with "$2"
  wait_for md_recovers
  usleep 1500000
}

# How an array stands.
md_state() {
  for name in level raid_disks chunk_size layout array_state degraded resync_start; do
    [ ! -e /sys/block/md0/md/$name ] || echo "$name $(cat /sys/block/md0/md/$name)"
  done
}
