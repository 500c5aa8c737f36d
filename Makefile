# One command to see it work: make demo. One to know that it does: make test.

GO ?= $(or $(shell command -v go 2>/dev/null),/usr/local/go/bin/go)
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
TEST_TIMEOUT ?= 10m
CC ?= cc

# The race detector needs a C compiler. Where nothing may be lacking, its absence is a failure, not a shorter test.
RACE ?= $(if $(or $(UNIONFS_MUST_WORK),$(shell command -v $(CC) 2>/dev/null)),-race)

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: build
build: ## build bin/unionfsd
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/unionfsd ./cmd/unionfsd

.PHONY: demo
demo: build ## show it work on a copy-on-write view of this host (asks for root)
	scripts/demo.sh bin/unionfsd

# DOCKER=1 does the same with a dockerd beside, and compares. TOOLS=1 goes there and back through skopeo, umoci, buildah and
# a registry.
.PHONY: course
course: build ## an image, its layers, containers and a new image, on both backends; with DOCKER=1 beside Docker (asks for root)
	scripts/course.sh bin/unionfsd $(if $(DOCKER),--docker,$(if $(TOOLS),--tools))

.PHONY: test
test: ## run all tests; as root, since they mount
	$(GO) vet ./...
	$(if $(RACE),,@echo 'no C compiler, so without the race detector' >&2)
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout $(TEST_TIMEOUT) ./...

.PHONY: programs
programs: build ## run nginx, apt-get, bash and PostgreSQL in containers, as root and not, on both backends (asks for root)
	scripts/programs.sh bin/unionfsd bin/debian.tar

.PHONY: clients
clients: build ## compare git, dpkg, SQLite, PostgreSQL, buildah and podman on unions with a plain directory (asks for root)
	scripts/clients.sh bin/unionfsd

.PHONY: engines
engines: build ## show what containers of podman, runc and unionfsd let a program see and do (asks for root)
	scripts/engines.sh bin/unionfsd

# By default Go spends up to a minute on making each new input smaller, and does little else.
FUZZ_TIME ?= 2m
FUZZ_FLAGS := -fuzzminimizetime 10x

.PHONY: test-long
test-long: fuzz programs clients ## run what takes hours: every fault at every step, long differential runs, real programs, and fuzz
	$(GO) test -timeout 2h ./fs/union -run TestFaults -faults.all
	$(GO) test -timeout 2h ./cmd/unionfsd -run TestKilled -kills 1000
	$(GO) test -timeout 2h ./image/layertar -layertar.seeds=1000
	$(GO) test -timeout 12h ./fs/mount/difftest -difftest.seeds=200 -difftest.ops=2000

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZ_TIME
	$(GO) vet ./...
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZ_TIME) $(FUZZ_FLAGS) $$pkg || exit 1; \
		done; \
	done

.PHONY: lint
lint: ## check format, vet and staticcheck, and that it builds without cgo
	@list=$$($(dir $(GO))gofmt -l .) || exit 1; test -z "$$list" || { echo "run gofmt -w on: $$list" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	CGO_ENABLED=0 GOARCH=amd64 $(GO) build -o /dev/null ./...
	CGO_ENABLED=0 GOARCH=arm64 $(GO) build -o /dev/null ./...

# The ten-minute set: the regime that can be repeated, and the peer that does the same. Without it: all, for hours.
BENCH ?= --regimes pinned --runs 3 --count=false --backends fuse,kernel,native,fuse-overlayfs \
	--workloads walk,negative,open-close,open-fixed,names,unlink-lower,untar,read-small,read-big,write \
	--workloads copyup-1m,chmod-lower,byte-64m,byte-1g,copyup-others,layers-2,layers-64,container-start

.PHONY: bench
bench: build ## measure what matters most on every backend, in ten minutes, into bench/RESULTS.md; all of it with BENCH=
	bin/unionfsd bench $(BENCH) --out bin/bench --results bench/RESULTS.md

# Both transports side by side, where the kernel offers FUSE over io_uring (unionfsd doctor tells).
TRANSPORTS := fuse=fuse --io-uring=off,io_uring=fuse --io-uring=on,kernel,fuse-overlayfs

.PHONY: bench-transports
bench-transports: build ## the same for /dev/fuse and io_uring, also of 250 layers and more, in half an hour
	bin/unionfsd bench --regimes pinned --runs 3 --backends '$(TRANSPORTS)' \
		--workloads metadata,create,data,copyup,layers-2,layers-250,layers-1000,layers-2000 --out bin/bench-transports --results bench/RESULTS.md

.PHONY: bench-launch
bench-launch: build ## time starts of containers beside runc, crun, bubblewrap and podman (asks for root)
	scripts/bench-launch.sh bin/unionfsd

.PHONY: bench-images
bench-images: build ## load and commit a large image beside docker, podman and umoci, as root, in DIR, which takes 10 GB
	scripts/bench-images.sh bin/unionfsd $(or $(DIR),bin/bench-images)

.PHONY: bench-smoke
bench-smoke: build ## run each benchmark once, tiny, to see that it works
	bin/unionfsd bench --regimes pinned --runs 1 --scale 0.005 --count=false --backends native,kernel,fuse

.PHONY: bench-micro
bench-micro: ## run the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
