// Package metrics exports what unionfsd does, in the formats of Prometheus.
//
// # Model
//
// A [Registry] is what one process has to tell; there is no global one. A process that serves a union fills it with a
// [Union], which counts requests, lookups and copy-ups while they happen, and a [Mount], which is looked at when
// somebody asks. The registry is read over HTTP ([Registry.Handler]): by Prometheus where a mount was told to listen,
// and always by other unionfsd commands on the control socket of the mount ([Fetch]).
//
// What was read are [Families]. Those of several mounts are merged into one text, which is why every series has
// the label mountpoint.
//
// # Cost
//
// Counting is on the path of every request, so it takes no lock and allocates nothing: what belongs to one operation
// has counters of its own, which two threads share only while both do the same. BenchmarkRequest tells what is left.
//
// # Names
//
// Names, units and types follow https://prometheus.io/docs/practices/naming; a test runs promlint over all of them.
// testdata/exposition.txt has all of them with their help. This package imports nothing of unionfsd: whoever has
// something to count calls it with plain values.
package metrics
