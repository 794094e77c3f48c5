// Package ports gives tests addresses to listen on later, in this process or in one that it starts.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// The ports lie below those that Linux gives to outgoing connections and to listeners on port 0 (32768 on, ip_local_port_range):
// nobody comes upon one by chance between its choice and its use.
const first, end = 10000, 32768

var kept struct {
	sync.Mutex
	locks []*os.File // until this process ends
}

// Loopback returns n addresses of 127.0.0.1 that nobody listens on. Until this process ends no other caller gets them, in this process
// or another one of the same user.
func Loopback(n int) ([]string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("varve-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	kept.Lock()
	defer kept.Unlock()
	addrs := make([]string, 0, n)
	for i, at := 0, rand.IntN(end-first); i < end-first && len(addrs) < n; i++ {
		port := strconv.Itoa(first + (at+i)%(end-first))
		lock, err := reserve(filepath.Join(dir, port), net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			return nil, err
		}
		if lock != nil {
			kept.locks, addrs = append(kept.locks, lock), append(addrs, net.JoinHostPort("127.0.0.1", port))
		}
	}
	if len(addrs) < n {
		return nil, fmt.Errorf("%d free ports between %d and %d, want %d", len(addrs), first, end, n)
	}
	return addrs, nil
}

// reserve answers nil where the port is another's.
func reserve(path, addr string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, lock.Close() // whatever the reason: there are others
	}
	return lock, ln.Close()
}
