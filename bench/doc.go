// Package bench measures the same work on everything that can serve a union, side by side.
//
// # Model
//
//   - A [Server] is one way to show layers as one tree: unionfsd's backends and, where they are installed, other union
//     file systems; "native" is the bare directory, which shows what the disk alone can do. Each is a process of its
//     own, started as a user would start it.
//   - A sample is one run of one [workload.Workload] on a fresh mount with an empty upper layer. The work itself is
//     done by a client process. Nothing of one sample is there in the next.
//   - Rounds are interleaved: every server does a workload once before any of them does it again, each round in another
//     order. So what else the machine does falls on all of them, and a ratio compares two runs of the same minute.
//   - A [Regime] is who runs on which CPU. It decides what a FUSE request costs, so both are measured: [Pinned] has
//     client and server on one CPU and can be repeated within some percent; [Free] is what a user gets.
//   - Requests and system calls are counted by the kernel's tracepoints, in a round of its own that is not timed.
//
// Everything happens in a mount namespace of its own, in one directory, and in processes that end with this one.
//
// # Reading order
//
// bench.go, sample.go, then server.go, client.go and count.go for the parts; report.go and what writes one: table.go,
// markdown.go, html.go, prometheus.go; compare.go.
package bench
