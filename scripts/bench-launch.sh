#!/bin/bash
# Measures the time from the command to the first byte of a program in a container, beside other launchers over the same
# directory:
#
#	scripts/bench-launch.sh UNIONFSD [ROUNDS]
#
# The launchers take turns, each in namespaces of its own for mounts, processes, host name, IPC and control groups, on the
# host's network. unionfsd mounts a union over the directory besides; the others use it as it is. Prints a line for each:
#
#	LAUNCHER MEDIAN-MS MIN-MS
#
# It takes busybox, and runc, crun, bwrap and podman as far as they are there. "unshare" is unshare(1) with chroot, which does
# nothing else. All is on a tmpfs, in a mount namespace that is gone at the end.
set -eu

unionfsd=$(realpath "$1")
rounds=${2-40}
if [ "$(id -u)" -ne 0 ]; then
	echo "Mounting needs root: sudo $0 $*" >&2
	exec sudo "$0" "$@"
fi
if [ -z "${UNIONFSD_LAUNCH_INSIDE-}" ]; then
	export UNIONFSD_LAUNCH_INSIDE=1
	exec unshare --mount --propagation private "$0" "$unionfsd" "$rounds"
fi

tmp=$(mktemp -d)
mount -t tmpfs tmpfs "$tmp"
trap 'cd /; umount -l "$tmp"; rmdir "$tmp"' EXIT
cd "$tmp"
mkdir -p root/bin root/etc root/tmp root/dev root/proc root/sys
cp "$(command -v busybox)" root/bin/busybox
ln -s busybox root/bin/echo
echo 'root:x:0:0::/root:/bin/sh' >root/etc/passwd

program=(/bin/echo first)
with_unionfsd-fuse() { "$unionfsd" --root "$tmp/u" run --rm -b fuse --rootfs root -- "${program[@]}"; }
with_unionfsd-kernel() { "$unionfsd" --root "$tmp/u" run --rm -b kernel --rootfs root -- "${program[@]}"; }
with_runc() { runc --root "$tmp/r" run -b bundle "box-$RANDOM"; }
with_crun() { crun --root "$tmp/c" run -b bundle "box-$RANDOM"; }
with_bwrap() { bwrap --bind root / --proc /proc --dev /dev --unshare-pid --unshare-uts --unshare-ipc --unshare-cgroup "${program[@]}"; }
with_podman() {
	podman --root "$tmp/p" --runroot "$tmp/pr" --runtime "$(command -v runc)" --cgroup-manager cgroupfs \
		run --rm --network host --ulimit nofile=1024:4096 --ulimit nproc=1000:1000 --rootfs "$tmp/root" "${program[@]}"
}
with_unshare() { unshare --mount --pid --fork --uts --ipc --cgroup chroot root "${program[@]}"; }

if command -v runc >/dev/null; then # the bundle is crun's, too
	mkdir bundle
	runc spec -b bundle
	jq '.root = {path: $root, readonly: false} | .process.terminal = false | .process.args = $ARGS.positional
		| .linux.namespaces |= map(select(.type != "network"))' \
		--arg root "$tmp/root" bundle/config.json --args -- "${program[@]}" >config.json
	mv config.json bundle
fi

launchers=()
for l in unionfsd-fuse unionfsd-kernel runc crun bwrap podman unshare; do
	case $l in unionfsd-*) ;; *) command -v $l >/dev/null || { echo "$l is not there" >&2; continue; } ;; esac
	if why=$(with_$l 2>&1) && [ "$why" = first ]; then
		launchers+=("$l")
	else
		echo "$l does not work here: ${why##*$'\n'}" >&2
	fi
done

sample() { # the microseconds until the first byte
	local begin=${EPOCHREALTIME/./} byte
	exec {out}< <(with_$1 2>/dev/null)
	IFS= read -rn1 -u "$out" byte
	echo $((${EPOCHREALTIME/./} - begin))
	wait $!
	exec {out}<&-
}
for ((i = 0; i < rounds; i++)); do
	for ((j = 0; j < ${#launchers[@]}; j++)); do
		l=${launchers[(i + j) % ${#launchers[@]}]}
		sample "$l" >>"$l.us"
	done
done
for l in "${launchers[@]}"; do
	sort -n "$l.us" | awk -v l="$l" '{ v[NR] = $1 } END { printf "%-16s %6.1f %6.1f\n", l, v[int((NR + 1) / 2)] / 1000, v[1] / 1000 }'
done
