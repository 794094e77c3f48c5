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
	for _, fd := range links(ports) {
		giveUpAfter(fd, linkPatience.Milliseconds())
	}
}

// links finds the connections of this process from or to some ports by their numbers: etcd shows none of its own.
func links(ports map[int]bool) (fds []int) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
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
			fds = append(fds, fd)
		}
	}
	return fds
}

// giveUpAfter has TCP give a connection up whose other end answers nothing for some milliseconds (RFC 5482); where there is
// nothing to be answered, TCP asks after two seconds of silence.
func giveUpAfter(fd int, ms int64) {
	if is, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || int64(is) == ms {
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ms))
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
