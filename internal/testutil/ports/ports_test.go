package ports

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const wanted = "VARVE_PORTS_WANTED" // by a second process of this test: host:port

// TestLoopback runs itself a second time: what one process holds, another one is not given, though nobody listens there.
func TestLoopback(t *testing.T) {
	if addr := os.Getenv(wanted); addr != "" {
		_, port, _ := net.SplitHostPort(addr)
		lock, err := reserve(filepath.Join(os.TempDir(), fmt.Sprintf("varve-ports-%d", os.Getuid()), port), addr)
		fmt.Printf("given: %v, %v\n", lock != nil, err)
		return
	}
	addrs, err := Loopback(3)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLoopback$")
		cmd.Env = append(os.Environ(), wanted+"="+addr)
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "given: false, <nil>\n") {
			t.Errorf("%s in another process: %v, %s", addr, err, out)
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
	}
}
