package transport

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// possibleCPUs is how many CPUs there could ever be on this machine, as the kernel counts them (num_possible_cpus).
func possibleCPUs() (int, error) {
	const path = "/sys/devices/system/cpu/possible"
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("number of CPUs: %w", err)
	}
	n, err := countList(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("number of CPUs: %s: %w", path, err)
	}
	return n, nil
}

// countList counts what a list like "0-3,8" names.
func countList(list string) (n int, err error) {
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && isRange {
			last, err = strconv.Atoi(to)
		}
		if err != nil || last < first {
			return 0, fmt.Errorf("%q is not a list of numbers", list)
		}
		n += last - first + 1
	}
	return n, nil
}
