#!/bin/bash
# clients.sh UNIONFSD [BACKEND...]: real programs on unions, each compared with a plain directory.
#
#   git         clone, change, gc and fsck a repository of a lower layer
#   dpkg        unpack 50 packages over 50 that a lower layer has, purge some of both
#   sqlite      a database of a lower layer, its writer killed in a transaction
#   postgresql  a database of a lower layer under pgbench, killed with -9 and started again
#   engines     buildah bud and podman run with the union as mount_program (fuse only)
#   fstab       mount -t fuse.unionfsd, and by a line of fstab(5) (fuse only)
#
# Backends: fuse, lazy (fuse with large files copied up by blocks), kernel, fuse-overlayfs. The tree that each client leaves is
# compared with that on the plain directory, and again when the union was unmounted and mounted; the databases check
# themselves before they are removed.
#
# It takes root, minutes and the network (apt-get download), so it is no part of make test. What is not installed is told
# and counts as a failure. Exit code 1 if anything differs.
set -u

unionfsd=$(realpath "$1")
if [ "$(id -u)" -ne 0 ]; then
	echo "Mounting needs root: sudo $0 $*" >&2
	exec sudo "$0" "$@"
fi
shift
backends=${*:-fuse lazy kernel fuse-overlayfs}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/clients.XXXXXX")
state=$work/state
failed=0

cleanup() {
	for m in "$work"/*/m; do umount -l "$m" 2>/dev/null; done # and the servers end
	rm -rf "$work"
}
trap cleanup EXIT

fail() {
	echo "FAIL $backend $client: $*"
	failed=1
}

# tree prints a line for each object of a directory, with what must be the same everywhere.
tree() {
	(cd "$1" && find . -printf '%p %y %m %U:%G %l ' \( -type f -printf '%s ' -exec sha256sum {} \; -o -printf '\n' \)) |
		sed 's/  .*$//' | grep -vE '/(\.git|origin)/(index|logs|objects)|/var/log/' | LC_ALL=C sort
}

# up and down mount and unmount the union of a client's layers on $dir/m; a plain directory is a copy of the lower layer.
up() {
	mkdir -p "$dir"/{upper,work,m}
	chown --reference="$lower" "$dir/upper"
	chmod --reference="$lower" "$dir/upper"
	local layers="lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work"
	case $backend in
	plain) [ -e "$dir/copied" ] || { cp -a "$lower/." "$dir/m" && touch "$dir/copied"; } ;;
	fuse-overlayfs) fuse-overlayfs -o "$layers" "$dir/m" ;;
	kernel) "$unionfsd" --root "$state" mount --backend kernel -o "$layers" "$dir/m" ;;
	lazy) "$unionfsd" --root "$state" mount -o "$layers,lazy=on" "$dir/m" ;;
	fuse) "$unionfsd" --root "$state" mount -o "$layers,lazy=off" "$dir/m" ;;
	esac || fail "cannot be mounted"
}

down() { [ "$backend" = plain ] || umount "$dir/m" || umount -l "$dir/m"; }

# compare looks at the tree, and again after it was unmounted and mounted.
compare() {
	[ "$backend" = plain ] && { tree "$dir/m" >"$work/$client.want"; return; }
	tree "$dir/m" >"$dir/now"
	diff "$work/$client.want" "$dir/now" >"$dir/diff" || fail "the tree differs: $(grep -c '^[<>]' "$dir/diff") lines: $(head -3 "$dir/diff" | tr '\n' ' ')"
	down
	up
	tree "$dir/m" >"$dir/again"
	diff "$dir/now" "$dir/again" >"$dir/diff" || fail "the tree differs when it is mounted again: $(head -3 "$dir/diff" | tr '\n' ' ')"
}

prepare_git() {
	# Not local: the files would be hard links, which a union without index=on breaks when it copies them up.
	git clone -q --no-local --bare "$(dirname "$0")/.." "$lower/origin"
	git -C "$lower" clone -q --no-local origin work
}

run_git() {
	cd "$dir/m" || return
	export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=gc.auto GIT_CONFIG_VALUE_0=0 # none in the background
	export GIT_AUTHOR_DATE='1600000000 +0000' GIT_COMMITTER_DATE='1600000000 +0000'
	git clone -q origin clone &&
		mv work/fs work/filesystems && git -C work add -A && # not git mv, which takes EXDEV for an error
		git -C work -c user.name=a -c user.email=a commit -qam move &&
		git -C work push -q origin HEAD:refs/heads/moved &&
		git -C origin gc -q --prune=now && git -C work gc -q && git -C clone fetch -q &&
		for r in origin work clone; do git -C $r fsck --no-progress --no-dangling || return; done &&
		git -C work status --porcelain | (! grep .) || fail "git"
	cd /
}

prepare_dpkg() {
	mkdir -p "$work/debs" "$lower"/var/lib/dpkg/{info,updates,triggers}
	: >"$lower/var/lib/dpkg/status"
	(cd "$work/debs" && dpkg-query -W -f '${Installed-Size} ${Architecture} ${Package}\n' | sort -n | awk '$1 > 20 && $1 < 3000 {print $3}' |
		head -130 | xargs -n 10 apt-get download -q >/dev/null 2>&1)
	ls "$work"/debs/*.deb | head -100 >"$work/list"
	[ "$(wc -l <"$work/list")" = 100 ] || fail "apt-get download gave $(wc -l <"$work/list") packages of 100"
	dpkgs "$lower" --unpack $(head -50 "$work/list")
}

dpkgs() {
	local root=$1
	shift
	dpkg --root="$root" --force-all --no-triggers --log=/dev/null "$@" >"$work/dpkg.log" 2>&1 || fail "dpkg $1: $(tail -1 "$work/dpkg.log")"
}

run_dpkg() {
	dpkgs "$dir/m" --unpack $(tail -50 "$work/list")
	rm -f "$dir/m"/var/lib/dpkg/info/*.p??rm # none of these is about this root
	dpkgs "$dir/m" --purge $(sed -n '1~5p' "$work/list" | while read -r deb; do dpkg-deb -f "$deb" Package; done)
}

prepare_sqlite() {
	sqlite3 "$lower/db" 'pragma journal_mode=wal; create table t(id integer primary key, n int, pad text);
		with recursive c(i) as (select 1 union all select i+1 from c where i < 50000) insert into t select i, 0, hex(randomblob(60)) from c;' >/dev/null
}

run_sqlite() {
	local m=$dir/m
	for i in 1 2 3; do
		(for ((k = 0; ; k++)); do sqlite3 "$m/db" "begin; update t set n = n + 1; update t set n = n - 1 where id % 2; commit;" 2>/dev/null; done) &
		local writer=$!
		sleep 1
		kill -STOP $writer # else it starts one more
		pkill -KILL -P $writer
		kill -KILL $writer
		wait $writer 2>/dev/null
		[ "$(sqlite3 "$m/db" 'pragma integrity_check')" = ok ] || fail "integrity_check"
		[ "$(sqlite3 "$m/db" 'select count(distinct n), min(n) from t where id % 2 union select count(distinct n), 0 from t where id % 2 = 0')" = "1|0" ] || fail "half a transaction"
	done
	sqlite3 "$m/db" 'update t set n = 7; pragma wal_checkpoint(truncate); vacuum' >/dev/null
	[ "$(sqlite3 "$m/db" 'select sum(n) from t')" = 350000 ] || fail "sum"
	rm -f "$m"/db* # what is in it is checked, its bytes are never the same
}

pg=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
as_postgres() { (cd / && runuser -u postgres -- "$@"); }

# start_postgresql starts a server as a child of this shell, which reaps it: to the next one a zombie would be a server that runs.
start_postgresql() {
	as_postgres "$pg/postgres" -D "$1" >/dev/null 2>&1 &
	for ((n = 0; n < 600; n++)); do
		as_postgres "$pg/pg_isready" -q -h /tmp -p 5999 && return
		sleep 0.2
	done
	fail "does not start"
	return 1
}

# stop_postgresql sends a signal to the server, and waits for its end.
stop_postgresql() {
	local master
	master=$(head -1 "$2/postmaster.pid")
	kill "$1" "$master"
	[ "$1" != -KILL ] || pkill -KILL -P "$master"
	wait
}

query() { as_postgres "$pg/psql" -h /tmp -p 5999 -Atc "$1" bench; }

prepare_postgresql() {
	chmod 755 "$work"
	mkdir "$lower/data" && chown postgres "$lower" "$lower/data" && chmod 700 "$lower/data"
	as_postgres "$pg/initdb" -D "$lower/data" -A trust >/dev/null || fail initdb
	printf "listen_addresses=''\nunix_socket_directories='/tmp'\nport=5999\n" >>"$lower/data/postgresql.conf"
	start_postgresql "$lower/data" || return
	as_postgres "$pg/createdb" -h /tmp -p 5999 bench && as_postgres "$pg/pgbench" -q -h /tmp -p 5999 -i -s 5 bench 2>/dev/null
	stop_postgresql -INT "$lower/data"
}

# check_sums looks whether what was committed is there, and is all there.
check_sums() {
	local sums
	sums=$(query 'select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
		(select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)' 2>&1 | tr '|' '\n' | sort -u)
	[[ $sums =~ ^-?[0-9]+$ ]] || fail "the sums differ: $(echo $sums)"
}

run_postgresql() {
	local data=$dir/m/data
	chmod 755 "$dir" "$dir/m"
	for i in 1 2 3; do
		start_postgresql "$data" || return
		[ $i = 1 ] || check_sums
		as_postgres "$pg/pgbench" -n -h /tmp -p 5999 -c 4 -T 4 bench >/dev/null 2>&1 &
		sleep 3
		stop_postgresql -KILL "$data"
	done
	start_postgresql "$data" || return
	check_sums
	stop_postgresql -INT "$data"
	rm -rf "$data"
}

run_engines() {
	printf 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "sh", "-c", "echo one >/a; /bin/busybox ln /a /b"]\nRUN ["/bin/busybox", "sh", "-c", "echo two >>/b; /bin/busybox rm /a"]\n' >"$dir/Dockerfile"
	cp "$(command -v busybox)" "$dir/busybox"
	local opts=(--root "$dir/root" --runroot "$dir/run" --storage-driver overlay --storage-opt "overlay.mount_program=$unionfsd")
	buildah "${opts[@]}" bud -q --isolation chroot -t clients "$dir" >"$dir/log" 2>&1 || fail "buildah: $(tail -1 "$dir/log")"
	# Where version 1 of control groups has the controllers, crun does not start; and nobody may raise limits in some machines.
	opts+=(--runtime "$(command -v runc || command -v crun)")
	[ "$(podman "${opts[@]}" --cgroup-manager cgroupfs --events-backend none run --rm --ulimit nofile=1024:4096 --ulimit nproc=1000:1000 --network none --security-opt seccomp=unconfined clients /bin/busybox cat /b 2>"$dir/log" | tr '\n' ' ')" = 'one two ' ] ||
		fail "podman: $(tail -1 "$dir/log")"
	podman "${opts[@]}" rmi -f clients >/dev/null 2>&1
	umount -l "$dir"/root/overlay 2>/dev/null
}

run_fstab() {
	local helper=/usr/local/bin/unionfsd_clients
	cp "$unionfsd" $helper
	mkdir -p "$dir"/{low,up,wrk,here} && echo x >"$dir/low/x"
	local o="lowerdir=$dir/low,upperdir=$dir/up,workdir=$dir/wrk"
	mount -t fuse.unionfsd_clients -o "$o" union "$dir/here" && echo y >"$dir/here/y" && umount "$dir/here" || fail "mount -t"
	echo "union $dir/here fuse.unionfsd_clients $o,noatime,noauto 0 0" >"$dir/fstab"
	mount -T "$dir/fstab" "$dir/here" && [ "$(cat "$dir"/here/?)" = "$(printf 'x\ny')" ] && umount "$dir/here" || fail "fstab"
	rm -f $helper
}

for client in git dpkg sqlite postgresql; do
	lower=$work/$client.lower
	mkdir -p "$lower"
	backend=none
	"prepare_$client"
	for backend in plain $backends; do
		dir=$work/$client-$backend
		up
		begin=$(date +%s%N)
		"run_$client"
		took=$((($(date +%s%N) - begin) / 1000000))
		compare
		down
		printf '%-11s %-15s %6d ms\n' $client "$backend" $took
		rm -rf "$dir"
	done
done
case " $backends " in
*" fuse "*)
	backend=fuse
	for client in engines fstab; do
		dir=$work/$client-fuse
		mkdir -p "$dir"
		"run_$client"
		echo "$client fuse done"
	done
	;;
esac
exit $failed
