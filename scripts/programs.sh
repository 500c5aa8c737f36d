#!/bin/bash
# What "make programs" shows: programs that people run, in containers over a Debian that mmdebstrap makes: nginx, apt-get,
# bash at a terminal, PostgreSQL. Each is run by root, by root with ids of the container's own, and by an ordinary user, on
# both backends.
#
#	scripts/programs.sh UNIONFSD [ROOT.tar]
#
# WHO="root auto user" and BACKEND="fuse kernel" choose some of them.
#
# The Debian is downloaded, unless ROOT.tar is there from another time. All else is on a tmpfs, in a mount namespace that is
# gone at the end.
set -eu

unionfsd=$(realpath "$1")
archive=$(realpath "${2-/nonexistent}" 2>/dev/null || true)
if [ "$(id -u)" -ne 0 ]; then
	echo "Mounting needs root: sudo $0 $*" >&2
	exec sudo "$0" "$@"
fi
if [ -z "${UNIONFSD_PROGRAMS_INSIDE-}" ]; then
	export UNIONFSD_PROGRAMS_INSIDE=1
	exec unshare --mount --propagation private "$0" "$unionfsd" ${2+"$2"}
fi
for tool in curl mmdebstrap newuidmap script setpriv; do
	command -v $tool >/dev/null || { echo "programs: it takes $tool; install that" >&2; exit 1; }
done

user=61234 port=18080
tmp=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$tmp"
cd "$tmp"
mkdir home
chown $user:$user home
cp "$unionfsd" unionfsd

# What distributions give to ordinary users: a name, /dev/fuse, and ids besides their own.
{ cat /etc/passwd; echo "somebody:x:$user:$user::$tmp/home:/bin/sh"; } >passwd
mount --bind passwd /etc/passwd
mknod -m 666 fuse c 10 229
echo "$user:$((user * 16384)):65536" >ids
mount --bind fuse /dev/fuse
for file in /etc/subuid /etc/subgid; do
	[ -e $file ] || { echo "programs: there is no $file; touch it" >&2; exit 1; }
	mount --bind ids $file
done

if [ ! -e "$archive" ]; then
	archive=${2-$tmp/root.tar}
	mmdebstrap --quiet --variant=minbase --include=ca-certificates,nginx-light,postgresql,procps stable "$archive"
	archive=$(realpath "$archive")
fi

# uni runs unionfsd as who is to, with the state root that is theirs.
uni() {
	case $who in
	user) (cd home && exec setpriv --reuid $user --regid $user --clear-groups ../unionfsd --root state "$@") ;;
	*) ./unionfsd --root state "$@" ;;
	esac
}

# start starts a container in the background, run a program in the foreground.
flags() { [ "$who" = auto ] && echo --userns=auto; true; }
start() { uni run -d -b "$backend" $(flags) "$@" >/dev/null; }
run() { uni run -b "$backend" $(flags) "$@"; }

now=
fail() {
	echo "FAIL $now: $*" >&2
	for name in web pg; do uni logs $name 2>/dev/null | tail -5 >&2 || true; done
	exit 1
}
trap '[ $? = 0 ] || for who in root user; do uni rm -f web pg apt >/dev/null 2>&1 || true; done
	cd /; umount -l "$tmp"; rmdir "$tmp"' EXIT

# expect PATTERN COMMAND... wants output that matches.
expect() {
	local want=$1 got
	shift
	got=$("$@" 2>&1) || fail "$*: $got"
	grep -qE -- "$want" <<<"$got" || fail "$*: no $want in: $got"
}

# until COMMAND... waits until it succeeds.
until_() {
	for _ in $(seq 100); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	fail "$* does not come to succeed"
}

nginx() {
	start --name web debian sh -c "
		sed -i 's/80 default_server/$port default_server/' /etc/nginx/sites-enabled/default
		echo \"from \$HOSTNAME, $who, $backend\" >/var/www/html/index.html
		exec nginx -g 'daemon off;'"
	until_ curl -fs http://127.0.0.1:$port/
	expect "^from web, $who, $backend\$" curl -fs http://127.0.0.1:$port/
	expect '^www-data +nginx$' uni exec web ps -C nginx -o user:9=,comm=
	uni stop web
	expect '^0$' uni wait web
	expect '^C /var/www$' uni diff web
	uni rm web
}

apt() {
	run --name apt debian sh -euc 'exec >/dev/null; export DEBIAN_FRONTEND=noninteractive
		apt-get -qq update; apt-get -qq install --no-install-recommends tree iputils-ping; tree --version; ping -V' ||
		fail "apt-get"
	expect '^A /usr/bin/tree$' uni diff apt
	uni commit apt debian:tree >/dev/null
	uni rm apt
	expect '^tree v' run --rm debian:tree tree --version
}

# Job control takes a terminal and a session of one's own; it is typed into one of script(1).
bash_() {
	local command="run --rm -t -b $backend $(flags) debian bash --norc"
	printf 'PS1=; set -m\nsleep 77 &\nsleep 0.2; jobs\nkill %%1; wait %%1; echo code $?\nsleep 0.1 | cat; fg 2>&1; tty\nexit 7\n' |
		(export -f uni; export who; sleep 1; cat; sleep 1) |
		script -qec "$(declare -f uni); who=$who user=$user; uni $command; echo exit \$?" /dev/null >typed ||
		fail "script"
	for want in 'Running +sleep 77' 'code 143' 'no current job|no such job' '/dev/pts/0' 'exit 7'; do
		grep -qE "$want" typed || fail "no $want in: $(cat typed)"
	done
}

postgres() {
	local layers=() dir
	[ "$who" = user ] && dir=home/layers || dir=layers
	rm -rf $dir
	mkdir -p $dir/upper $dir/work
	[ "$who" = user ] && chown -R $user:$user $dir
	layers=(--upper layers/upper --work layers/work)
	sql() { uni exec -u postgres pg psql -qAth /tmp -c "$1"; }
	serve() {
		start --name pg "${layers[@]}" --stop-signal INT -u postgres -w /tmp debian sh -euc '
			PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
			[ -d db ] || initdb -D db >/dev/null
			exec postgres -D db -k /tmp -c listen_addresses='
		until_ sql 'select 1'
	}
	serve
	sql 'create table t (n int); insert into t select generate_series(1, 10000)' || fail "insert"
	uni stop pg
	expect '^0$' uni wait pg
	uni rm pg
	serve
	expect '^50005000$' sql 'select sum(n) from t'
	expect 'database system was shut down' uni logs pg
	uni stop pg
	uni rm pg
	rm -rf $dir
}

for who in root user; do
	uni import "$archive" debian >out 2>&1 || { cat out >&2; exit 1; }
done
for who in ${WHO-root auto user}; do
	for backend in ${BACKEND-fuse kernel}; do
		for program in nginx apt bash_ postgres; do
			now="$program, $who, $backend"
			began=$(date +%s%N)
			$program
			printf 'ok   %-10s %-5s %-7s %6d ms\n' "${program%_}" $who $backend $((($(date +%s%N) - began) / 1000000))
		done
	done
done
for who in root user; do
	[ -z "$(uni ps | tail -n +2)" ] || fail "left: $(uni ps)"
done
