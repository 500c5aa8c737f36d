#!/bin/bash
# What "make engines" shows: one program in a container of unionfsd's, of podman's and of runc's, over the same directory, and
# what each lets it see and do, as the tables of docs/containers.md.
#
#	scripts/engines.sh UNIONFSD
#
# It takes podman, runc, jq and busybox. All is on a tmpfs, in a mount namespace that is gone at the end.
set -eu

unionfsd=$(realpath "$1")
if [ "$(id -u)" -ne 0 ]; then
	echo "Mounting needs root: sudo $0 $*" >&2
	exec sudo "$0" "$@"
fi
if [ -z "${UNIONFSD_ENGINES_INSIDE-}" ]; then
	export UNIONFSD_ENGINES_INSIDE=1
	exec unshare --mount --propagation private "$0" "$unionfsd"
fi
for tool in podman runc jq busybox; do
	command -v $tool >/dev/null || { echo "engines: it takes $tool; install that" >&2; exit 1; }
done

tmp=$(mktemp -d)
mount -t tmpfs tmpfs "$tmp"
trap 'cd /; umount -l "$tmp"; rmdir "$tmp"' EXIT
cd "$tmp"
mkdir -p root/bin root/etc root/tmp root/dev root/proc root/sys bundle
cp "$(command -v busybox)" root/bin/busybox
for applet in $(busybox --list); do [ -e root/bin/"$applet" ] || ln -s busybox root/bin/"$applet"; done
echo 'root:x:0:0::/root:/bin/sh' >root/etc/passwd
touch root/plain

export SECRET=of-the-host # which no container is to have

# COMMAND ARG... in a container of each engine
with_unionfsd() { "$unionfsd" --root "$tmp/u" run --rm -b kernel --hostname box --rootfs "$tmp/root" -- "$@"; }
with_podman() {
	podman --root "$tmp/p" --runroot "$tmp/pr" --runtime "$(command -v runc)" --cgroup-manager cgroupfs \
		run --rm --network host --ulimit nofile=1024:4096 --ulimit nproc=1000:1000 --hostname box --rootfs "$tmp/root" "$@"
}
with_runc() {
	rm -f bundle/config.json
	runc spec -b bundle
	jq '.root = {path: $root, readonly: false} | .hostname = "box" | .process.terminal = false | .process.args = $ARGS.positional
		| .linux.namespaces |= map(select(.type != "network"))' \
		--arg root "$tmp/root" bundle/config.json --args -- "$@" >config.json
	mv config.json bundle
	runc --root "$tmp/r" run -b bundle "box-$RANDOM"
}
engines=(unionfsd podman runc)

# What a program sees, one fact a line, NAME<tab>VALUE.
cat >root/report <<'REPORT'
#!/bin/sh
line() { printf '%s\t%s\n' "$1" "$2"; }
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status | tr '\t' ' '; }
line 'environment' "$(env | cut -d= -f1 | grep -vxE 'PWD|SHLVL|OLDPWD' | sort | tr '\n' ' ')"
line 'user, group, groups' "$(id -u), $(id -g), $(id -G)"
line 'working directory' "$(pwd)"
line 'umask' "$(umask)"
line 'CapEff' "$(status CapEff)"
line 'CapBnd' "$(status CapBnd)"
line 'CapInh' "$(status CapInh)"
line 'NoNewPrivs' "$(status NoNewPrivs)"
line 'Seccomp' "$(status Seccomp)"
line 'open files' "$(ulimit -n)"
line 'core' "$(ulimit -c)"
line 'oom_score_adj' "$(cat /proc/self/oom_score_adj)"
line 'pid 1' "$(cat /proc/1/comm)"
line 'descriptors' "$(ls /proc/self/fd | grep -vx 3 | tr '\n' ' ')"
line '/dev' "$(ls /dev | tr '\n' ' ')"
line 'mounts' "$(awk '$5 !~ "^/(proc|sys)/" && $5 !~ "^/sys/fs" { print $5 }' /proc/self/mountinfo | sort | tr '\n' ' ')"
line 'masked' "$(awk '$5 ~ "^/(proc|sys)/" && / - tmpfs / { print $5 }' /proc/self/mountinfo | sort | tr '\n' ' ')"
line 'read-only below /proc' "$(awk '$5 ~ "^/proc/" && / - proc / && $6 ~ "^ro" { print $5 }' /proc/self/mountinfo | sort | tr '\n' ' ')"
line '/sys' "$(awk '$5 == "/sys" { print $6 }' /proc/self/mountinfo)"
line 'processes' "$(ls /proc | grep -cE '^[0-9]+$')"
REPORT
chmod +x root/report

declare -A report
for e in "${engines[@]}"; do report[$e]=$(with_$e /report); done
table() {
	local row
	printf '| |'
	printf ' %s |' "${engines[@]}"
	printf '\n|---|'
	printf -- '---|%.0s' "${engines[@]}"
	echo
	cat
}
cut -f1 <<<"${report[unionfsd]}" | while read -r fact; do
	printf '| %s |' "$fact"
	for e in "${engines[@]}"; do printf ' %s |' "$(sed -n "s|^$fact	||p" <<<"${report[$e]}" | sed 's/ *$//')"; done
	echo
done | table

echo
code() { local c=0; "$@" >/dev/null 2>&1 </dev/null || c=$?; echo $c; }
while read -r what command; do
	printf '| `%s` |' "$command"
	for e in "${engines[@]}"; do printf ' %s |' "$(eval "code with_$e $command")"; done
	printf ' %s\n' "$what"
done <<'CODES' | sed 's/| \([a-z-]*\)$/|/' | table
exit sh -c 'exit 3'
signal sh -c 'kill -TERM $$'
kill sh -c 'kill -KILL $$'
missing /no/such
not-executable /plain
directory /etc
CODES
