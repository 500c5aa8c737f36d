#!/bin/bash
# Measures image tools beside each other, on an image of 20 layers, 100,000 files and 1.1 GB:
#
#	scripts/bench-images.sh UNIONFSD DIR [ROUNDS]
#
# load: the image from an archive to layers that can be mounted; umoci unpacks it from an OCI layout to a directory, with
# what it needs to tell changes. commit: a container with 10,000 new files becomes an image. Each sample is on an ext4 of its
# own, in DIR, which takes 10 GB; the tools take turns. Prints a line for each sample:
#
#	TOOL WORKLOAD SECONDS SECONDS-UNTIL-ON-DISK CPU-SECONDS MAX-RSS-MIB
#
# CPU time is that of all processes that work for the tool, so of dockerd, too. It takes docker.io, podman, umoci and skopeo;
# what is not there is left out, and said so.
set -eu
unionfsd=$(realpath "$1")
mkdir -p "$2"
dir=$(realpath "$2")
rounds=${3-3}
cd "$dir"

mounted=
dockerd=
clean() {
	stop_docker
	[ -z "$mounted" ] || { cd "$dir"; umount -l "$dir/mnt"; }
	rm -rf "$dir/fs.img" "$dir/mnt"
}
trap clean EXIT

fresh() {
	cd "$dir"
	[ -z "$mounted" ] || umount mnt
	rm -f fs.img
	truncate -s 8G fs.img
	mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 -N 600000 fs.img
	mkdir -p mnt
	mount -o loop fs.img mnt
	mounted=1
	sync -f mnt
	cd mnt
}

# ticks PID is the CPU time of a process and of its children that have ended, in hundredths of a second.
ticks() { [ -z "$1" ] && echo 0 || awk '{sub(/.*\) /, ""); print $12 + $13 + $14 + $15}' "/proc/$1/stat"; }

# sample TOOL WORKLOAD COMMAND... measures a command.
sample() {
	local tool=$1 workload=$2 before start end disk
	shift 2
	before=$(ticks "$dockerd")
	start=$(date +%s.%N)
	/usr/bin/time -o "$dir/time" -f '%U %S %M' "$@" >"$dir/log" 2>&1 || { echo "$tool $workload failed:" >&2; cat "$dir/log" >&2; exit 1; }
	end=$(date +%s.%N)
	sync -f .
	disk=$(date +%s.%N)
	read -r user sys rss <"$dir/time"
	if [ -n "$dockerd" ]; then
		rss=$(awk '/VmHWM/ {print $2}' "/proc/$dockerd/status")
	fi
	echo "$tool $workload $start $end $disk $user $sys $before $(ticks "$dockerd") $rss" |
		awk '{printf "%s %s %.1f %.1f %.1f %d\n", $1, $2, $4 - $3, $5 - $3, $6 + $7 + ($9 - $8) / 100, $10 / 1024}'
}

docker() { command docker -H "unix://$dir/docker.sock" "$@"; }

start_docker() {
	dockerd --iptables=false --ip-masq=false --bridge=none --storage-driver overlay2 -H "unix://$dir/docker.sock" \
		--data-root "$dir/mnt/docker" --exec-root "$dir/docker-exec" --pidfile "$dir/docker.pid" >"$dir/dockerd.log" 2>&1 &
	dockerd=$!
	for _ in $(seq 100); do
		docker version >/dev/null 2>&1 && return
		sleep 0.1
	done
	tail "$dir/dockerd.log" >&2
	exit 1
}

stop_docker() {
	[ -n "$dockerd" ] || return 0
	kill "$dockerd"
	wait "$dockerd" 2>/dev/null || true
	dockerd=
}

# changes are what a container writes before it is committed.
changes() {
	mkdir -p "$1"
	tar -xf "$dir/changes.tar" -C "$1"
}

unionfsd_sample() {
	sample unionfsd load "$unionfsd" --root state load -q -i ../big.tar
	"$unionfsd" --root state run --name con big:1 /bin/sh -c :
	changes state/containers/con/upper
	sample unionfsd commit "$unionfsd" --root state commit con big:2
}

unionfsd_gzip_sample() { sample unionfsd load-gzip "$unionfsd" --root state load -q -i ../big.gz.tar; }

docker_sample() {
	start_docker
	sample docker load docker -H "unix://$dir/docker.sock" load -q -i ../big.tar
	docker create --name con --network none big:1 >/dev/null
	changes "$(docker inspect con --format '{{.GraphDriver.Data.UpperDir}}')"
	sample docker commit docker -H "unix://$dir/docker.sock" commit con big:2
	stop_docker
}

docker_gzip_sample() {
	start_docker
	sample docker load-gzip docker -H "unix://$dir/docker.sock" load -q -i ../big.gz.tar
	stop_docker
}

podman() { command podman --root "$dir/mnt/podman" --runroot "$dir/mnt/run" --storage-driver overlay "$@"; }

podman_sample() {
	sample podman load podman --root "$dir/mnt/podman" --runroot "$dir/mnt/run" --storage-driver overlay load -q -i ../big.tar
	podman create --name con --network none big:1 >/dev/null
	changes "$(podman mount con)"
	sample podman commit podman --root "$dir/mnt/podman" --runroot "$dir/mnt/run" --storage-driver overlay commit -q con big:2
	podman umount con >/dev/null
	podman rm con >/dev/null
}

umoci_sample() { sample umoci load umoci unpack --image ../layout:big bundle; }

[ -e big.tar ] || { (cd "$(dirname "$unionfsd")" && go build -o "$dir/bigimage" ../bench/bigimage) && ./bigimage -shell "$(command -v busybox)" >big.tar; }
[ -e big.gz.tar ] || ./bigimage -gzip -shell "$(command -v busybox)" >big.gz.tar
[ -e changes.tar ] || { mkdir -p c/srv && for i in $(seq 10000); do echo "$i" >"c/srv/$i"; done && tar -cf changes.tar -C c . && rm -r c; }
samples="unionfsd_sample unionfsd_gzip_sample"
for tool in docker podman umoci; do
	if ! command -v $tool >/dev/null; then
		echo "$tool is not installed" >&2
		continue
	fi
	case $tool in
	docker) samples="$samples docker_sample docker_gzip_sample" ;;
	umoci)
		[ -e layout ] || skopeo copy -q docker-archive:big.tar oci:layout:big
		samples="$samples umoci_sample"
		;;
	*) samples="$samples ${tool}_sample" ;;
	esac
done
for _ in $(seq "$rounds"); do
	for s in $samples; do
		fresh
		$s
	done
done
cat /proc/loadavg >&2
