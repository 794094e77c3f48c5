package etcdkv

import (
	"net/url"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// tendLinks gives the connections between members that are open now linkPatience.
func (m *Member) tendLinks() {
	ports := map[int]bool{}
	for _, member := range m.etcd.Server.Cluster().Members() {
		for _, u := range member.PeerURLs {
			if u, err := url.Parse(u); err == nil {
				port, _ := strconv.Atoi(u.Port())
				ports[port] = true
			}
		}
	}
	eachLink(ports, func(fd int) { giveUpAfter(fd, int(linkPatience.Milliseconds())) })
}

// eachLink finds the connections of this process from or to some ports by their numbers: etcd shows none of its own. A number may be
// another connection's by the time of do.
func eachLink(ports map[int]bool, do func(fd int)) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		remote, err := unix.Getpeername(fd)
		if err != nil {
			continue // no connection
		}
		if local, err := unix.Getsockname(fd); err == nil && (ports[portOf(remote)] || ports[portOf(local)]) {
			do(fd)
		}
	}
}

// giveUpAfter has TCP give a connection up whose other end answers nothing for some milliseconds (RFC 5482); where there is
// nothing to be answered, TCP asks after two seconds of silence.
func giveUpAfter(fd, ms int) {
	if is, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || is == ms {
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
}

func portOf(a unix.Sockaddr) int {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}
