#!/bin/busybox sh
# The guest's first process: readies the system, runs the command, and ends the machine. What the command wrote goes to the second
# serial line, and what it came to to the third; closing a line waits until all is sent.
/bin/busybox mkdir -p /proc /sys /dev /run /root /var/lib /var/log
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
while read -r module; do
    insmod "$module" || echo "$module can't be loaded"
done </guest/modules
ip link set lo up
for line in /dev/ttyS1 /dev/ttyS2; do stty -F $line raw; done
cd /root
mkfifo /guest/out
cat /guest/out >/dev/ttyS1 &
teller=$!
(exec /guest/command) >/guest/out 2>&1
status=$?
# What it has left running may hold its output open: that is no reason to wait for ever.
(sleep 5 && kill $teller) 2>/dev/null &
wait $teller
echo $status >/dev/ttyS2
reboot -f
