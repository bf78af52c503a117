#!/bin/busybox sh
# The first and only process of a virtual machine: runs the tests, writes what
# they print to the second port, between lines that start with ##, and turns the
# machine off. The first port is the kernel's console.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp PROGRUN_KERNEL_MATRIX=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
ulimit -l unlimited

while read -r module; do
	insmod "/modules/$module.ko" || echo "kernels: cannot load the module $module"
done </modules/order
ip link set lo up

exec >/dev/vport0p1 2>&1
echo "##booted $(cut -d ' ' -f 1 /proc/uptime)"

read -r PROGRUN_REQUIRE </tests/require
export PROGRUN_REQUIRE
set --
while read -r arg; do set -- "$@" "$arg"; done </tests/args
while read -r dir path; do
	cd "$dir"
	echo "##begin $path"
	./package.test "$@" </dev/null
	status=$?
	echo
	echo "##end $path $status"
done </tests/list
poweroff -f
