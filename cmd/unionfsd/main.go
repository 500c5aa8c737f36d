package main

import (
	"io"
	"os"
	"path/filepath"

	"github.com/unionfsd/unionfsd/bench"
	"github.com/unionfsd/unionfsd/bench/workload"
	"github.com/unionfsd/unionfsd/ns"
)

func main() {
	dispatch()
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// dispatch runs what this process is if it is not the command line: one of the programs that unionfsd starts from
// its own binary. It does not return then.
func dispatch() {
	ns.Init()
	switch os.Args[0] {
	case daemonName:
		os.Exit(daemon())
	case rootlessName:
		continueRootless()
	case rootlessAgainName:
		beginRootless()
	case supervisorName:
		os.Exit(detachedSupervisor())
	case bench.ClientName:
		os.Exit(bench.Client())
	case workload.HelloName:
		os.Exit(workload.Hello())
	}
}

// run is the command line: it returns the exit code.
func run(argv []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr}
	if program := filepath.Base(argv[0]); isHelper(program, argv[1:]) {
		return a.report(a.helper(program, argv[1:]))
	}
	return a.report(a.execute(argv[1:]))
}
