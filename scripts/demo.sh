#!/bin/sh
# What "make demo" shows: a container over this host's own / on the FUSE backend, what it changed, and the same union
# mounted by the kernel. The host's files are only ever read.
#
# State is on a tmpfs of its own, for two reasons: it is gone for certain at the end, and it is not part of the lower
# layer /. The kernel's overlayfs refuses an upper layer that lies inside a lower one.
set -eu

unionfsd=$(realpath "$1")
if [ "$(id -u)" -ne 0 ]; then
	echo "Mounting needs root: sudo $0 $1" >&2
	exec sudo "$0" "$unionfsd"
fi

tmp=$(mktemp -d /tmp/unionfsd-demo.XXXXXX)
state=$tmp/state
upper=$state/containers/demo/upper
work=$state/containers/demo/work

# clean takes everything away again, wherever the demo ended, and fails if something is left.
clean() {
	code=$?
	trap - EXIT
	cd /
	[ ! -d "$tmp/merged" ] || uni umount "$tmp/merged" >/dev/null 2>&1 || true
	! mountpoint -q "$tmp" || umount "$tmp" || umount -l "$tmp"
	rmdir "$tmp"
	if grep -F "$tmp" /proc/self/mountinfo >&2; then
		echo "demo: these mounts were left" >&2
		exit 1
	fi
	for proc in /proc/[0-9]*; do
		if [ "$(readlink "$proc/exe")" = "$unionfsd" ]; then
			echo "demo: process ${proc#/proc/} was left" >&2
			exit 1
		fi
	done 2>/dev/null
	[ $code -ne 0 ] || say "Clean: no mount, no process and no file is left."
	[ $code -eq 0 ] || echo "demo: failed; $unionfsd doctor says what works on this host" >&2
	exit $code
}

uni() { "$unionfsd" --root "$state" "$@"; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
	printf '$ '
	[ "$1" != uni ] || { shift; set -- unionfsd "$@"; }
	printf '%s ' "$@" && echo
	[ "$1" != unionfsd ] || { shift; set -- uni "$@"; }
	"$@"
}

# view prints what the union at $1 holds in some directories: names, types, modes, owners, sizes, times, contents.
view() {
	(
		cd "$1"
		find etc srv usr/bin -xdev -exec ls -ld {} + | LC_ALL=C sort
		find etc srv -xdev -type f -exec cksum {} + | LC_ALL=C sort
	)
}

trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

mount -t tmpfs -o mode=0700 unionfsd-demo "$tmp"
mkdir "$tmp/merged"
before=$(cksum /etc/passwd /etc/profile)

say "1. A container over this host's own /, served over FUSE: it edits, creates and deletes."
show uni run --name demo --rootfs / -- sh -c '
	echo "container $(hostname), pid $$, $(wc -l </proc/self/mountinfo) mounts"
	echo "# edited in the container" >>/etc/passwd
	mkdir -p /srv/demo && echo hello >/srv/demo/hello
	rm /etc/profile
	tail -n 1 /etc/passwd; cat /srv/demo/hello; ls /etc/profile || true'
show uni ps

say "2. What it changed (A added, C changed, D deleted). The host itself is as it was."
show uni diff demo
[ "$(cksum /etc/passwd /etc/profile)" = "$before" ]

say "3. On disk, the deletion is a whiteout: a character device 0, 0 in the upper layer."
show ls -l "$upper/etc"

say "4. The same layers and the same upper, mounted over FUSE and then by the kernel: one view."
show uni mount -b fuse -l / -u "$upper" -w "$work" "$tmp/merged"
show uni mounts
view "$tmp/merged" >"$tmp/view.fuse"
show uni umount "$tmp/merged"
show uni mount -b kernel -l / -u "$upper" -w "$work" "$tmp/merged"
show uni mounts
view "$tmp/merged" >"$tmp/view.kernel"
tail -n 1 "$tmp/merged/etc/passwd"
show uni umount "$tmp/merged"
if ! diff "$tmp/view.fuse" "$tmp/view.kernel"; then
	echo "demo: the views differ" >&2
	exit 1
fi
echo "The views are the same: $(wc -l <"$tmp/view.fuse") lines of names, types, modes, owners, sizes, times and checksums."

show uni rm demo
