#!/bin/sh
# What "make course" shows: a course about the images and containers of Docker, step by step, with unionfsd and without
# Docker: an image and its layers, containers over them, what they change, and a new image of that. Each step checks what
# it shows; each backend does all of them.
#
#	scripts/course.sh UNIONFSD [--docker|--tools]
#
# With --docker a dockerd is started beside, which does the same with the same image; ids, layers, history, differences,
# archives and file systems must be equal. That takes Debian's docker.io, or another with the overlay2 driver. With --tools
# the images go there and back through skopeo, umoci, buildah and a registry.
#
# The images are made here, of busybox and of Debian's nginx, which is got by apt if it is not installed. All is on a
# tmpfs, which is gone at the end.
set -eu

unionfsd=$(realpath "$1")
beside=${2-}
if [ "$(id -u)" -ne 0 ]; then
	echo "Mounting needs root: sudo $0 $*" >&2
	exec sudo "$0" "$@"
fi
for tool in busybox curl jq tar; do
	command -v $tool >/dev/null || { echo "course: it takes $tool; install that" >&2; exit 1; }
done

bold= plain=
if [ -t 1 ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() { echo "course: $*" >&2; exit 1; }

state=state
uni() { "$unionfsd" --root "$tmp/$state" "$@"; }

# show prints a command, and runs it: "unionfsd" with the state root of the step.
show() {
	printf '$'
	for word; do
		case $word in
		*[!a-zA-Z0-9/._:=,-]* | '') printf " '%s'" "$word" ;;
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

# expect TEXT COMMAND... shows a command that must print just TEXT.
expect() {
	want=$1
	shift
	show "$@" >out || fail "$* failed"
	cat out
	[ "$(tail -n +2 out)" = "$want" ] || fail "$* should have printed: $want"
}

# same NAME FILE FILE checks that two tools say the same.
same() {
	diff -u "$2" "$3" >&2 || fail "$1: unionfsd (-) and Docker (+) differ"
	echo "as Docker: $1"
}

# patient COMMAND... runs a command until it succeeds, for ten seconds.
patient() {
	for _ in $(seq 100); do
		"$@" >out 2>&1 && return
		sleep 0.1
	done
	cat out >&2
	fail "$* did not succeed"
}

clean() {
	code=$?
	trap - EXIT
	for s in state-fuse state-kernel; do
		if [ -d "$tmp/$s" ]; then
			state=$s
			uni ps --json | jq -r '.[].name' | while read -r name; do uni rm -f "$name"; done
		fi
	done >/dev/null 2>&1
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	cd /
	for m in $(awk -v t="$tmp/" 'index($5, t) == 1 {print $5}' /proc/self/mountinfo | tac); do
		umount -l "$m"
	done
	umount "$tmp" || umount -l "$tmp"
	rmdir "$tmp"
	if [ $code -ne 0 ]; then
		echo "course: failed; $unionfsd doctor says what works on this host" >&2
	fi
	exit $code
}

server= # of Docker, or the registry
tmp=$(mktemp -d /tmp/unionfsd-course.XXXXXX)
if ! mount -t tmpfs -o mode=0700 unionfsd-course "$tmp"; then
	rmdir "$tmp"
	exit 1
fi
cd "$tmp"
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The images: base has a shell, tar and a terminal's worth of tools; web adds nginx in four steps, two of which are no layers;
# tools is another image over the same base.
base_files() {
	mkdir -p base/bin base/etc base/tmp base/root base/var
	cp "$(command -v busybox)" base/bin/busybox
	for applet in sh ls cat rm echo sed sleep touch mkdir head; do ln base/bin/busybox base/bin/$applet; done
	cp "$(command -v tar)" base/bin/tar
	chmod 1777 base/tmp
	printf 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n' >base/etc/passwd
	printf 'root:x:0:\nwww-data:x:33:\n' >base/etc/group
}

nginx_files() {
	mkdir -p web/usr/sbin web/etc/nginx web/srv web/var/log/nginx web/var/lib/nginx
	program=$(command -v nginx || true)
	if [ -z "$program" ]; then
		(cd web && chmod 0755 . && apt-get -qq -o APT::Sandbox::User=root download nginx && dpkg -x nginx_*.deb ../nginx-deb && rm nginx_*.deb)
		program=nginx-deb/usr/sbin/nginx
	fi
	cp "$program" web/usr/sbin/nginx
	for lib in $(ldd web/usr/sbin/nginx base/bin/tar | grep -o '/[^ :]* (' | tr -d '('); do
		mkdir -p "web$(dirname "$lib")"
		cp -L "$lib" "web$lib"
	done
	! ldd web/usr/sbin/nginx | grep 'not found' || fail "nginx lacks libraries: install those"
	cat >web/etc/nginx/nginx.conf.in <<-END
		user root; error_log stderr; pid /var/nginx.pid;
		events {}
		http { access_log off; server { listen 127.0.0.1:@PORT@; root /srv; } }
	END
	echo 'hello from nginx' >web/srv/index.html
	cat >web/docker-entrypoint.sh <<-'END'
		#!/bin/sh
		sed "s/@PORT@/$PORT/" /etc/nginx/nginx.conf.in >/etc/nginx/nginx.conf
		exec "$@"
	END
	chmod 0755 web/docker-entrypoint.sh
}

# build makes the archives web.tar and tools.tar in a store of its own, which is not used again.
build() {
	base_files
	nginx_files
	state=state-build
	uni import -q -c 'CMD ["sh"]' -c 'ENV PATH=/usr/sbin:/bin' base base:1 >/dev/null
	uni run --name files -v ./web:/web:ro base:1 sh -c 'busybox cp -a /web/. / && rm -r /tmp && mkdir /tmp && busybox chmod 1777 /tmp'
	uni commit -c 'ENV PORT=8080' files web:files >/dev/null
	uni run --name site web:files sh -c 'echo "<h1>the course</h1>" >/srv/course.html'
	uni commit -c 'ENTRYPOINT ["/docker-entrypoint.sh"]' -c 'CMD ["nginx","-g","daemon off;"]' -m 'a site' site web:1 >/dev/null
	uni run --name tools base:1 sh -c 'mkdir /opt && echo 1 >/opt/tool'
	uni commit tools tools:1 >/dev/null
	uni save -o web.tar web:1
	uni save -o tools.tar tools:1
	uni rm files site tools
}

# layers_by_hand prints the chain ids of the image whose diff ids come on standard input.
layers_by_hand() {
	chain=
	while read -r diff; do
		chain=${chain:+sha256:$(printf '%s %s' "$chain" "$diff" | sha256sum | cut -d' ' -f1)}
		chain=${chain:-$diff}
		echo "$chain"
	done
}

by_hand() {
	say "$backend 1. A union by hand: two layers that are only read, and one that takes the changes."
	mkdir image1 image2 container work merge
	touch image1/a image1/b image2/c
	show unionfsd mount -b "$backend" -l image2 -l image1 -u container -w work merge
	expect "a b c" sh -c 'echo $(ls merge)'
	show rm merge/a
	show unionfsd tree container
	[ -c container/a ] && [ -e image1/a ] || fail "a is not a whiteout"
	show sh -c 'echo "hello bb" >image1/b'
	expect "hello bb" cat merge/b
	show sh -c 'echo "hello m" >merge/b'
	expect "hello m" cat merge/b
	show sh -c 'echo "hello bbb" >image1/b'
	expect "hello m" cat merge/b
	show unionfsd umount merge
	rm -rf image1 image2 container work merge
}

images() {
	say "$backend 2. Images: what is loaded, what they have in common, how they were made."
	show unionfsd load -i web.tar
	show unionfsd load -i tools.tar 2>&1 | tee out
	grep -q 'Already exists' out || fail "the base layer was unpacked twice"
	show unionfsd images
	uni inspect web:1 | jq '.[].RootFS' | tee out
	jq -r '.Layers[]' out >diff-ids
	layers_by_hand <diff-ids >chain-ids
	show unionfsd layers web:1
	uni layers --json web:1 | jq -r '.[].chain_id' | tac | diff - chain-ids || fail "chain ids"
	show unionfsd history web:1
	show unionfsd df
	[ "$(uni layers --json | jq '[.[] | select(.shared_by == 2)] | length')" = 1 ] || fail "the base is not shared"
}

# base_layer is where the base layer is, as a directory of the host.
base_layer() { uni layers --json web:1 | jq -r '.[-1].path'; }

containers() {
	say "$backend 3. Two containers over one base layer, each with changes of its own."
	show unionfsd run -b "$backend" -d --name one --entrypoint sleep web:1 1000
	show unionfsd run -b "$backend" -d --name two --entrypoint sleep tools:1 1000
	show sh -c 'echo "lower layer" >"$0"/a' "$(base_layer)"
	expect "lower layer" unionfsd exec one cat /a
	expect "lower layer" unionfsd exec two cat /a
	show sh -c 'echo "lower layer" >"$0"/b' "$(base_layer)" # while both know that there is no such file
	expect "lower layer" unionfsd exec one cat /b
	expect "lower layer" unionfsd exec two cat /b
	show unionfsd exec one sh -c 'echo container-1 >/a'
	show unionfsd exec two sh -c 'echo container-2 >/b'
	expect "container-1 lower layer" unionfsd exec one sh -c 'echo $(cat /a /b)'
	expect "lower layer container-2" unionfsd exec two sh -c 'echo $(cat /a /b)'
	expect "lower layer lower layer" sh -c 'echo $(cat "$0"/a "$0"/b)' "$(base_layer)"
	show unionfsd ps
	show unionfsd rm -f one two
	rm "$(base_layer)/a" "$(base_layer)/b"
}

graphdriver() {
	say "$backend 4. The homework: a container from what inspect says of the layers, which stay as they are."
	uni inspect web:1 >image.json
	show unionfsd run -b "$backend" --rm --graphdriver image.json --entrypoint sh -- -c 'cat /srv/index.html; echo changed >/srv/index.html'
	expect "hello from nginx" unionfsd run -b "$backend" --rm --entrypoint cat web:1 /srv/index.html
}

serve() {
	say "$backend 5. nginx, by what the image says."
	port=$((20000 + $$ % 20000))
	show unionfsd run -b "$backend" -d --name nginx -e PORT=$port web:1
	patient curl -sf "http://127.0.0.1:$port/course.html"
	expect "hello from nginx" curl -s "http://127.0.0.1:$port/"
	expect "<h1>the course</h1>" curl -s "http://127.0.0.1:$port/course.html"
	show unionfsd stop nginx
	uni diff nginx
	uni rm nginx
}

change() {
	say "$backend 6. What a container changes, and an image of it."
	show unionfsd run -b "$backend" --name rm_tar --entrypoint rm web:1 /bin/tar
	expect "C /bin
D /bin/tar" unionfsd diff rm_tar
	show unionfsd commit -m 'no tar' rm_tar web:rm_tar
	show unionfsd history web:rm_tar
	[ "$(uni layers --json web:rm_tar | jq length)" = 4 ] || fail "the commit is not one more layer"
	top=$(uni layers --json web:rm_tar | jq -r '.[0].diff_id')
	show unionfsd tree "$top"
	uni save -o rm_tar.tar web:rm_tar
	entries rm_tar.tar >entries
	[ "$(cat entries)" = "bin/
bin/.wh.tar" ] || fail "the new layer has other entries: $(cat entries)"
	show unionfsd run -b "$backend" --rm --entrypoint ls web:rm_tar /bin | grep -v '^[$]' >out
	! grep -qx tar out || fail "tar is there"
	uni rm rm_tar
}

# entries lists the topmost layer of an archive of one image.
entries() {
	blob=$(tar -xOf "$1" manifest.json | jq -r '.[0].Layers[-1]')
	tar -xOf "$1" "$blob" >layer
	tar -tf layer 2>/dev/null || tar -tzf layer
}

round_trip() {
	say "$backend 7. There and back: what is saved has the same ids, and the same bytes where nothing changed."
	uni inspect web:rm_tar | jq -r '.[0].Id' >id
	show unionfsd rmi web:rm_tar web:1
	show unionfsd load -q -i rm_tar.tar
	uni inspect web:rm_tar | jq -r '.[0].Id' | diff id - || fail "the image has another id"
	mkdir was now
	tar -xf web.tar -C was
	tar -xf rm_tar.tar -C now
	for blob in $(jq -r '.[0].Layers[]' was/manifest.json); do
		cmp "was/$blob" "now/$blob" || fail "layer $blob was saved otherwise than it was loaded"
	done
	rm -r was now
	show unionfsd export -o flat.tar web:rm_tar
	[ "$(tar -tf flat.tar | grep -c '^bin/tar$')" = 0 ] || fail "tar is there"
}

course() {
	backend=$1
	state=state-$backend
	by_hand
	images
	containers
	graphdriver
	serve
	change
	round_trip
	uni rmi web:rm_tar tools:1 >/dev/null
	[ -z "$(uni ps --json | jq -r '.[].name')" ] || fail "containers are left"
	expect "0" sh -c 'ls "$0" | wc -l' "$tmp/$state/layers"
}

# Docker, with the same images.

docker() { DOCKER_CONFIG=$tmp/docker-config command docker -H "unix://$tmp/docker.sock" "$@"; }

start_docker() {
	mkdir docker-config
	command -v dockerd >/dev/null || fail "there is no dockerd: install docker.io"
	dockerd --iptables=false --ip-masq=false --bridge=none --storage-driver overlay2 -H "unix://$tmp/docker.sock" \
		--data-root "$tmp/docker" --exec-root "$tmp/docker-exec" --pidfile "$tmp/docker.pid" >dockerd.log 2>&1 &
	server=$!
	patient docker version
	docker version --format 'Docker {{.Server.Version}}'
}

# history without when, which both count from now.
history_columns() { sed 's/  \+/|/g' | cut -d'|' -f1,3-; }

beside_docker() {
	say "Beside Docker, with the same images."
	start_docker
	state=state-fuse
	for image in web tools; do
		uni load -q -i $image.tar >/dev/null
		docker load -q -i $image.tar >/dev/null
		for what in Id RootFS Config.Env Config.Cmd Config.Entrypoint Architecture Created; do
			uni inspect $image:1 | jq ".[0].$what" >ours
			docker inspect $image:1 | jq ".[0].$what" >theirs
			same "$image: $what" ours theirs
		done
		uni layers --json $image:1 | jq -r '.[].chain_id' | sort >ours
		for diff in $(docker inspect $image:1 | jq -r '.[0].RootFS.Layers[]'); do
			grep -lx "$diff" "$tmp"/docker/image/overlay2/layerdb/sha256/*/diff
		done | sed 's|.*/sha256/\(.*\)/diff|sha256:\1|' | sort -u >theirs
		same "$image: chain ids" ours theirs
		uni history --no-trunc $image:1 | history_columns >ours
		docker history --no-trunc $image:1 | history_columns >theirs
		sed -i 's/^sha256:[0-9a-f]*/ID/; s/^<missing>/ID/' ours theirs # which steps were made here
		same "$image: history" ours theirs
	done

	docker run --network none --name rm_tar --entrypoint rm web:1 /bin/tar
	uni run --name rm_tar --entrypoint rm web:1 /bin/tar
	docker diff rm_tar | sort -k2 >theirs
	uni diff rm_tar >ours
	same "diff" ours theirs
	docker commit rm_tar web:docker >/dev/null
	docker save -o docker.tar web:docker
	uni commit rm_tar web:rm_tar >/dev/null
	uni save -o rm_tar.tar web:rm_tar
	entries rm_tar.tar >ours
	entries docker.tar >theirs
	same "entries of the new layer" ours theirs

	docker create --name flat --network none web:docker >/dev/null
	docker export flat | list >theirs
	uni export web:rm_tar | list >ours
	same "the file system of the new image" ours theirs

	say "There and back between the two."
	show unionfsd load -q -i docker.tar
	uni inspect web:docker | jq '.[0].Id, .[0].RootFS' >ours
	docker inspect web:docker | jq '.[0].Id, .[0].RootFS' >theirs
	same "the image that Docker has committed" ours theirs
	expect "hello from nginx" unionfsd run --rm --entrypoint cat web:docker /srv/index.html
	uni run --name more --entrypoint sh web:docker -c 'echo more >/more'
	uni commit more web:more >/dev/null
	uni save web:more | docker load -q
	uni inspect web:more | jq '.[0].Id, .[0].RootFS' >ours
	docker inspect web:more | jq '.[0].Id, .[0].RootFS' >theirs
	same "an image of that, committed here" ours theirs
	[ "$(docker run --rm --network none --entrypoint cat web:more /more)" = more ] || fail "Docker does not run it"
	docker rm rm_tar flat >/dev/null
	uni rm rm_tar more

	say "The layers in Docker's own store, read where they are."
	for b in fuse kernel; do
		expect "more" unionfsd run -b $b --rm --docker-root "$tmp/docker" --entrypoint cat docker:web:more /more
	done
	docker image inspect web:more >image.json
	expect "more" unionfsd run --rm --graphdriver image.json --entrypoint cat /more
}

# Other tools, with the same images.

registry() {
	(cd "$(dirname "$unionfsd")" && go build -o "$tmp/registry" github.com/google/go-containerregistry/cmd/registry)
	"$tmp/registry" -port 0 2>registry.log &
	server=$!
	patient grep -q 'serving on port' registry.log
	port=$(sed -n 's/.*serving on port //p' registry.log)
}

# is NAME checks that the image NAME is web:1 of web.tar.
is() {
	uni inspect "$1" | jq -r '.[0].Id' | diff web.id - || fail "$1 has another id"
	echo "the same id: $1"
}

beside_tools() {
	for tool in skopeo umoci buildah go; do
		command -v $tool >/dev/null || fail "--tools takes $tool: install that"
	done
	state=state-fuse
	uni load -q -i web.tar >/dev/null
	uni inspect web:1 | jq -r '.[0].Id' >web.id
	uni export web:1 | list >web.list

	say "skopeo: out of the archive, and out of the store; and in again."
	show skopeo copy -q docker-archive:web.tar oci:layout:archive
	show skopeo copy -q "oci:$tmp/$state/images:docker.io/library/web:1" oci:layout:store
	show skopeo copy -q oci:layout:store oci-archive:again.tar:oci
	show skopeo copy -q oci:layout:store docker-archive:docker.tar:docker:1
	show unionfsd load -q -i layout
	show unionfsd load -q -i again.tar
	show unionfsd load -q -i docker.tar
	is store
	is oci
	for name in archive docker:1; do # whose configs skopeo has written anew
		uni inspect $name | jq '.[0].RootFS' >theirs
		uni inspect web:1 | jq '.[0].RootFS' | diff - theirs || fail "$name has other layers"
	done

	say "A registry: pushed by us, read by skopeo; pushed by skopeo, pulled by us."
	registry
	show unionfsd push web:1 "localhost:$port/web:1"
	show skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "docker://localhost:$port/web:1" "docker://localhost:$port/copy:1"
	show unionfsd rmi web:1 archive store oci docker:1
	show unionfsd pull "localhost:$port/copy:1"
	is "localhost:$port/copy:1"
	show unionfsd load -q -i web.tar
	[ "$(find "$tmp/$state/layers" -mindepth 1 -maxdepth 1 ! -name 'chain-*' | wc -l)" = 3 ] || fail "layers were unpacked twice"

	say "umoci: what it unpacks is what we export; what it makes of a change runs."
	show umoci unpack --image layout:store bundle
	tar -cC bundle/rootfs . | list | diff web.list - || fail "umoci unpacks another file system"
	rm bundle/rootfs/bin/tar
	echo changed >bundle/rootfs/srv/index.html
	show umoci repack --image layout:changed bundle
	show unionfsd load -q -i layout
	expect changed unionfsd run --rm --entrypoint cat changed /srv/index.html
	show unionfsd run --rm --entrypoint sh changed -c 'test ! -e /bin/tar'

	say "buildah: builds on an image of ours; what it has built runs."
	printf 'FROM localhost:%s/web:1\nRUN rm /bin/tar && echo built >/built\nCMD ["cat", "/built"]\nENTRYPOINT []\n' "$port" >Containerfile
	show buildah --root "$tmp/buildah" --runroot "$tmp/buildah-run" --storage-driver vfs build -q --tls-verify=false --isolation chroot --layers=true -t oci-archive:built.tar:built .
	show unionfsd load -q -i built.tar
	expect built unionfsd run --rm built
	uni save -o saved.tar built
	show skopeo copy -q oci-archive:saved.tar oci:layout:built
	umoci unpack --image layout:built built
	tar -cC built/rootfs . | list >theirs
	uni export built | list | diff - theirs || fail "umoci unpacks another file system of what buildah has built"
}

# list tells of the entries of an archive what Docker's own files in a container do not change.
list() {
	mkdir list
	tar -xpf - -C list
	(cd list && find . -path ./dev -prune -o -path ./proc -prune -o -path ./sys -prune -o -path ./etc/hosts -prune -o \
		-path ./etc/hostname -prune -o -path ./etc/resolv.conf -prune -o -path ./etc/mtab -prune -o -path ./.dockerenv -prune -o \
		! -path . ! -path ./etc -printf '%p %y %m %U:%G %s %l\n' | sed 's/^\([^ ]* d .*\) [0-9]* $/\1/' | LC_ALL=C sort)
	rm -rf list
}

say "The images: made of busybox and nginx."
build
course fuse
course kernel
case $beside in
--docker) beside_docker ;;
--tools) beside_tools ;;
esac
say "The course is passed on both backends${beside:+, with $beside}."
