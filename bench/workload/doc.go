// Package workload is the work that the benchmarks measure: what people do in a union, cut into steps that are timed.
//
// # Model
//
//   - A [Workload] needs lower layers, which its [Recipe] builds once for all backends, and runs its [Step]s in order
//     on one fresh mount with an empty upper layer. Each step is one row of the report.
//   - A step runs in a client process of its own ([Env] is what it knows). It counts its operations and checks what it
//     saw: a file system that shows the wrong files must not win.
//   - Sizes are those of [Scale] 1. Smaller scales are for trying whether everything works.
//
// Each workload is a file that says what it stands for, and calls register. Client code uses system calls rather than
// package os, which asks for more than it is told to (fstat after open) and so would be measured, too.
package workload
