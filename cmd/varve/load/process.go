package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// clockTicks is USER_HZ, which Linux fixes at 100 for what it shows in /proc.
const clockTicks = 100

// Usage is what a process has used since it started, as /proc tells (Linux only). Bytes written are those that reached the
// block layer: what the page cache absorbed and dropped is not in them.
type Usage struct {
	CPUSeconds float64
	WriteBytes int64
	RSSBytes   int64
	PeakBytes  int64
}

// ReadUsage reads the figures of a process.
func ReadUsage(pid int) (Usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Usage{}, fmt.Errorf("read usage of process %d: %w", pid, err)
	}
	// The command's name stands in brackets and may hold anything: fields are counted behind the last bracket.
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 13 {
		return Usage{}, fmt.Errorf("read usage of process %d: unknown format of %s/stat", pid, dir)
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	u := Usage{CPUSeconds: float64(user+system) / clockTicks}
	u.WriteBytes = field(dir+"/io", "write_bytes:")
	u.RSSBytes = field(dir+"/status", "VmRSS:") << 10
	u.PeakBytes = field(dir+"/status", "VmHWM:") << 10
	return u, nil
}

// field is the number behind a label in a /proc file, 0 where it is not there (no right to read it).
func field(path, label string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, label); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}
