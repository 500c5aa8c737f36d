//go:build race

package ns

// Under the race detector, a process sleeps for a second when it exits; init would, with every container.
func init() { initEnv = append(initEnv, "GORACE=atexit_sleep_ms=0") }
