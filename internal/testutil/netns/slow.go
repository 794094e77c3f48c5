//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxPacket   = 1 << 16
	linkBacklog = 1000 // packets that wait in a slow link; more are dropped, as in a switch
)

// Link is what a slow way is like; the zero value only takes the detour.
type Link struct {
	Delay          time.Duration // of every packet
	BytesPerSecond int           // 0: no limit
	Loss           float64       // share of packets that vanish, 0 to 1
	Seed           uint64        // of the loss
}

// Slowed is a way from one node to another that leads through this process: many kernels have no netem. It works on connections that
// exist too, in one direction, and beside a Cut.
type Slowed struct {
	carried, dropped atomic.Int64
	in, out          *os.File // tun devices in the sender and in the receiver
	wg               sync.WaitGroup
}

// Carried is how many packets have come through, Dropped how many have not.
func (s *Slowed) Carried() int64 { return s.carried.Load() }

// Dropped counts lost packets and those that found the link's queue full.
func (s *Slowed) Dropped() int64 { return s.dropped.Load() }

// Slow leads all that from sends to to over a slow link until the link is closed. One at a time for each way.
func (w *Net) Slow(from, to int, l Link) (*Slowed, error) {
	in, err := w.tun(from, "to"+strconv.Itoa(to))
	if err != nil {
		return nil, err
	}
	out, err := w.tun(to, "from"+strconv.Itoa(from))
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	s := &Slowed{in: in, out: out}
	// What arrives comes from a device that does not lead back to its sender: without these the receiver drops it. The route is last,
	// packets take it from then on.
	err = runAll(
		append(w.Exec(to), "sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/from"+strconv.Itoa(from)+"/rp_filter"),
		ipIn(w.nodes[from], fmt.Sprintf("route add %s/32 dev to%d src %s", w.Addr(to), to, w.Addr(from))),
	)
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	queue := make(chan packet, linkBacklog)
	s.wg.Go(func() { defer close(queue); s.read(l, queue) })
	s.wg.Go(func() { s.deliver(queue) })
	return s, nil
}

// Close ends the slow link: its devices and its route go, and what is still in it arrives at once or is lost.
func (s *Slowed) Close() error {
	err := s.in.Close()
	err = errors.Join(err, s.out.Close())
	s.wg.Wait()
	return err
}

// packet is delivered at a moment.
type packet struct {
	bytes []byte
	due   time.Time
}

func (s *Slowed) read(l Link, queue chan<- packet) {
	rng := rand.New(rand.NewPCG(l.Seed, 1))
	buf := make([]byte, maxPacket)
	var free time.Time // when the link has sent all before
	for {
		n, err := s.in.Read(buf)
		if err != nil {
			return // closed
		}
		if n == 0 || buf[0]>>4 != 4 {
			continue // the kernel's own, of IP version 6
		}
		if l.Loss > 0 && rng.Float64() < l.Loss {
			s.dropped.Add(1)
			continue
		}
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		if l.BytesPerSecond > 0 {
			free = free.Add(time.Duration(n) * time.Second / time.Duration(l.BytesPerSecond))
		}
		select {
		case queue <- packet{append([]byte(nil), buf[:n]...), free.Add(l.Delay)}:
		default:
			s.dropped.Add(1)
		}
	}
}

func (s *Slowed) deliver(queue <-chan packet) {
	for p := range queue {
		if wait := time.Until(p.due); wait > 0 {
			time.Sleep(wait)
		}
		if _, err := s.out.Write(p.bytes); err != nil {
			s.dropped.Add(1) // closed
			continue
		}
		s.carried.Add(1)
	}
}

// tun makes a device in a node whose packets are read and written here. It lives as long as the file is open.
func (w *Net) tun(node int, name string) (*os.File, error) {
	f, err := inside(w.nodes[node], func() (*os.File, error) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("open /dev/net/tun", err)
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return nil, errors.Join(fmt.Errorf("tun %s: %w", name, err), unix.Close(fd))
		}
		return os.NewFile(uintptr(fd), name), nil
	})
	if err != nil {
		return nil, err
	}
	if err := run(ipIn(w.nodes[node], "link set "+name+" up")...); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// SlowAvailable says why ways cannot be slowed, nil where they can; beyond Available it needs the kernel's tun devices.
func SlowAvailable(ctx context.Context) error {
	if err := Available(); err != nil {
		return err
	}
	w, err := New(2)
	if err != nil {
		return err
	}
	s, err := w.Slow(0, 1, Link{})
	if err == nil {
		err = s.Close()
	}
	return errors.Join(err, w.Close(), ctx.Err())
}
