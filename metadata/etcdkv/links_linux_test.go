package etcdkv

import (
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLinksHavePatience: a connection between members does not outlive a cut network for longer than linkPatience. What that
// is for is measured by make failover ARGS="-only cut".
func TestLinksHavePatience(t *testing.T) {
	c := newTrio(t, 3)
	c.start(1, 2, 3)
	peers := map[int]bool{}
	for _, v := range c.voters {
		_, port, err := net.SplitHostPort(v.PeerAddr)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(port)
		peers[n] = true
	}
	ctx := c.context()
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		patient, all := 0, 0
		eachLink(peers, func(fd int) {
			all++
			if ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err == nil && ms == int(linkPatience.Milliseconds()) {
				patient++
			}
		})
		// Two streams each way of each pair, and both ends are in this process.
		if patient == all && patient >= 3*2*2*2 {
			return
		}
	}
	t.Fatal("connections without patience are left")
}
