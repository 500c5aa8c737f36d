package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// The steps of an image: each is a layer, which the engine finds out by comparing two unions, and unpacks for the next.
const containerfile = `
FROM scratch
COPY root /
RUN mkdir -p /app/lib /app/etc; for i in 1 2 3 4 5; do echo $i > /app/lib/f$i; done; ln /app/lib/f1 /app/lib/hard
RUN rm -r /data/sub; mkdir /data/sub; echo new > /data/sub/new; mv /app/lib /app/lib2; rm /app/lib2/f3; chown 12:34 /app/lib2/f4
RUN rm -r /app/etc; mkdir /app/etc; touch /app/etc/again /data/one; chmod 4755 /app/lib2/f5; rm /data/sub/new; rm -r /data/old; echo f > /data/old
`

// A container engine that builds an image with this program for its unions gets the image that it builds with the
// kernel's.
func TestImageBuild(t *testing.T) {
	testfs.NeedRoot(t)
	for _, program := range []string{"buildah", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			testfs.Skip(t, "%v", err)
		}
	}
	dir := testfs.TempDir(t)
	if isOverlay(t, dir) {
		dir = testfs.Tmpfs(t)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`
		mkdir -p ctx/root/bin ctx/root/data/sub ctx/root/data/old/er ctx/root/tmp
		cp %s ctx/root/bin/busybox
		for p in sh mkdir ln rm mv chown chmod touch; do ln -s busybox ctx/root/bin/$p; done
		echo 1 > ctx/root/data/one; echo 2 > ctx/root/data/sub/two; echo 3 > ctx/root/data/old/er/three`, busybox)
	output(t, dir, "sh", "-euc", script)
	if err := os.WriteFile(dir+"/ctx/Containerfile", []byte(containerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The engine gives its options and nothing else; the state is kept apart from the machine's.
	helper := dir + "/helper"
	wrapper := fmt.Sprintf("#!/bin/bash\nexec -a unionfsd %s --root %s/state \"$@\"\n", self, dir)
	if err := os.WriteFile(helper, []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}

	kernel := build(t, dir, "kernel")
	ours := build(t, dir, "ours", "--storage-opt", "overlay.mount_program="+helper)
	if _, err := os.Stat(dir + "/state"); err != nil {
		t.Errorf("the engine did not ask us: %v", err)
	}
	if kernel != ours {
		t.Errorf("the image is not the one that the kernel gives:\n%s", testfs.Diff(kernel, ours))
	}
	if !strings.Contains(ours, "app/etc/again") {
		t.Errorf("this is not the image:\n%s", ours)
	}
}

// build builds the image and describes its tree.
func build(t *testing.T, dir, name string, options ...string) string {
	t.Helper()
	buildah := append([]string{"--root", filepath.Join(dir, name), "--runroot", filepath.Join(dir, name+"-run"),
		"--storage-driver", "overlay"}, options...)
	t.Cleanup(func() { testfs.UnmountAll(filepath.Join(dir, name)) })
	output(t, dir, "buildah", append(buildah, "bud", "--quiet", "--isolation", "chroot", "--layers", "--tag", "image", "ctx")...)
	container := strings.TrimSpace(output(t, dir, "buildah", append(buildah, "from", "--pull-never", "image")...))
	tree := testfs.Fingerprint(strings.TrimSpace(output(t, dir, "buildah", append(buildah, "mount", container)...)), testfs.Options{})
	output(t, dir, "buildah", append(buildah, "umount", container)...)
	return tree
}

// output runs a program and returns what it prints.
func output(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}
