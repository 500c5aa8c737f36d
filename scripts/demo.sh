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

bold= plain=
if [ -t 1 ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

uni() { "$unionfsd" --root state "$@"; }

# show prints a command, and runs it: "unionfsd" with the state root of the demo.
show() {
	printf '$'
	for word; do
		case $word in
		*[!a-zA-Z0-9/._-]*) printf " '%s'" "$word" ;;
		*) printf ' %s' "$word" ;;
		esac
	done
	echo
	if [ "$1" = unionfsd ]; then
		shift
		uni "$@"
	else
		"$@"
	fi
}

# view prints what the union at $1 holds in some directories: names, types, modes, owners, sizes, times, contents.
view() {
	(
		cd "$1"
		find etc srv usr/bin -xdev -exec ls -ld {} + | LC_ALL=C sort
		find etc srv -xdev -type f -exec cksum {} + | LC_ALL=C sort
	)
}

mounted() { grep -F " $tmp" /proc/self/mountinfo; }

# running prints the processes that work in $tmp.
running() {
	for proc in /proc/[0-9]*; do
		if tr '\0' ' ' <"$proc/cmdline" | grep -F "$tmp/"; then
			echo "is process ${proc#/proc/}"
		fi
	done 2>/dev/null
}

# clean takes everything away again, wherever the demo ended, and fails if something is left.
clean() {
	code=$?
	trap - EXIT
	uni umount merged >/dev/null 2>&1 || true
	cd /
	umount "$tmp" || umount -l "$tmp"
	rmdir "$tmp"
	if mounted >&2 || running | grep . >&2; then
		echo "demo: this was left behind" >&2
		code=1
	fi
	if [ $code -eq 0 ]; then
		say "Clean: no mount, no process and no file is left."
	else
		echo "demo: failed; $unionfsd doctor says what works on this host" >&2
	fi
	exit $code
}

tmp=$(mktemp -d /tmp/unionfsd-demo.XXXXXX)
if ! mount -t tmpfs -o mode=0700 unionfsd-demo "$tmp"; then
	rmdir "$tmp"
	exit 1
fi
cd "$tmp"
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir merged
upper=state/containers/demo/upper
work=state/containers/demo/work
before=$(cksum /etc/passwd /etc/profile)

say "1. A container over this host's own /, served over FUSE: it edits, creates and deletes."
show unionfsd run --name demo --rootfs / -- sh -c '
  echo "in $(hostname), which has $(wc -l </proc/self/mountinfo) mounts of its own"
  echo "# edited in the container" >>/etc/passwd && tail -n 1 /etc/passwd
  mkdir -p /srv/demo && echo hello >/srv/demo/hello
  rm /etc/profile && ls /etc/profile || true'
show unionfsd ps

say "2. What it changed: A added, C changed, D deleted. The host itself is as it was."
show unionfsd diff demo
[ "$(cksum /etc/passwd /etc/profile)" = "$before" ]

say "3. On disk, the deletion is a whiteout: a character device 0, 0 in the upper layer."
show ls -l "$upper/etc"

say "4. The same layers and the same upper, mounted over FUSE and then by the kernel: the same view."
show unionfsd mount -b fuse -l / -u "$upper" -w "$work" merged
show unionfsd mounts
view merged >view.fuse
show unionfsd umount merged
show unionfsd mount -b kernel -l / -u "$upper" -w "$work" merged
show unionfsd mounts
view merged >view.kernel
show tail -n 1 merged/etc/passwd
show unionfsd umount merged
show diff view.fuse view.kernel
echo "No difference in $(wc -l <view.fuse) lines of names, types, modes, owners, sizes, times and checksums."

show unionfsd rm demo
