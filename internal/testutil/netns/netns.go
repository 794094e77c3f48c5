//go:build linux

// Package netns makes a network of its own on this machine: each node is a network namespace, and all hang on one bridge in a
// further namespace, so that nothing of it touches the machine's network. The way from one node to another is cut and healed in each
// direction by itself: the receiver drops what comes from the sender without a word, as a broken switch does.
//
// It needs root and the tools ip (iproute2) and nft (nftables); Available says what is missing.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	prefix  = "varve-" // of the namespaces: varve-PID-NETWORK-NODE
	subnet  = "10.213.0."
	maxNode = 200
)

// Net is a network of nodes 0 to n-1.
type Net struct {
	nodes []string // names of namespaces
	hub   string
}

var networks atomic.Int64 // made by this process

// Available says why this machine cannot make networks, nil where it can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("network namespaces need the tool %s: %w", tool, err)
		}
	}
	probe := prefix + strconv.Itoa(os.Getpid()) + "-probe"
	if err := run("ip", "netns", "add", probe); err != nil {
		return fmt.Errorf("this machine allows no network namespaces: %w", err)
	}
	return run("ip", "netns", "del", probe)
}

// New makes a network with n nodes. What processes that are gone have left behind is removed first.
func New(n int) (_ *Net, err error) {
	if n < 1 || n > maxNode {
		return nil, fmt.Errorf("netns: %d nodes, want 1 to %d", n, maxNode)
	}
	if err := removeLeftovers(); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), networks.Add(1))
	w := &Net{hub: name + "hub"}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if err := run("ip", "netns", "add", w.hub); err != nil {
		return nil, err
	}
	if err := runAll(ipIn(w.hub, "link add br0 type bridge"), ipIn(w.hub, "link set br0 up")); err != nil {
		return nil, err
	}
	for i := range n {
		w.nodes = append(w.nodes, name+strconv.Itoa(i))
		if err := w.addNode(i); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// addNode makes a node's namespace, its link to the hub, and its table of senders that it does not hear.
func (w *Net) addNode(i int) error {
	ns, port := w.nodes[i], "v"+strconv.Itoa(i)
	if err := run("ip", "netns", "add", ns); err != nil {
		return err
	}
	return runAll(
		ipIn(w.hub, "link add "+port+" type veth peer name eth0 netns "+ns),
		ipIn(w.hub, "link set "+port+" master br0"),
		ipIn(w.hub, "link set "+port+" up"),
		ipIn(ns, "addr add "+w.Addr(i)+"/24 dev eth0"),
		ipIn(ns, "link set eth0 up"),
		ipIn(ns, "link set lo up"),
		w.nft(i, "add table ip varve"),
		w.nft(i, "add set ip varve deaf { type ipv4_addr ; }"),
		w.nft(i, "add chain ip varve in { type filter hook input priority 0 ; }"),
		w.nft(i, "add rule ip varve in ip saddr @deaf drop"),
	)
}

// Nodes is how many there are.
func (w *Net) Nodes() int { return len(w.nodes) }

// Addr is a node's address.
func (w *Net) Addr(node int) string { return subnet + strconv.Itoa(node+1) }

// Exec is the beginning of a command line that runs the rest of it in a node.
func (w *Net) Exec(node int) []string { return []string{"ip", "netns", "exec", w.nodes[node]} }

// Cut drops all that from sends to to, from now on, on connections that exist too.
func (w *Net) Cut(from, to int) error {
	return run(w.nft(to, "add element ip varve deaf { "+w.Addr(from)+" }")...)
}

// Heal ends a Cut; without one it is an error.
func (w *Net) Heal(from, to int) error {
	return run(w.nft(to, "delete element ip varve deaf { "+w.Addr(from)+" }")...)
}

// HealAll ends every Cut.
func (w *Net) HealAll() error {
	var errs []error
	for i := range w.nodes {
		errs = append(errs, run(w.nft(i, "flush set ip varve deaf")...))
	}
	return errors.Join(errs...)
}

// Dial connects from a node; address must be numeric.
func (w *Net) Dial(ctx context.Context, node int, network, address string) (net.Conn, error) {
	var d net.Dialer
	return inside(w.nodes[node], func() (net.Conn, error) { return d.DialContext(ctx, network, address) })
}

// Listen listens in a node.
func (w *Net) Listen(ctx context.Context, node int, network, address string) (net.Listener, error) {
	var l net.ListenConfig
	return inside(w.nodes[node], func() (net.Listener, error) { return l.Listen(ctx, network, address) })
}

// ListenPacket is Listen for datagrams.
func (w *Net) ListenPacket(ctx context.Context, node int, network, address string) (net.PacketConn, error) {
	var l net.ListenConfig
	return inside(w.nodes[node], func() (net.PacketConn, error) { return l.ListenPacket(ctx, network, address) })
}

// Close removes the network. Processes in it keep running without one: end them first.
func (w *Net) Close() error {
	var errs []error
	for _, ns := range append(w.nodes, w.hub) {
		if _, err := os.Stat("/run/netns/" + ns); err == nil {
			errs = append(errs, run("ip", "netns", "del", ns))
		}
	}
	return errors.Join(errs...)
}

// inside calls fn on a thread that has entered a namespace; a socket stays in the one that it was made in. The thread is not used
// for anything else and ends with its goroutine.
func inside[T any](ns string, fn func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		var r result
		if r.err = enter(ns); r.err == nil {
			r.value, r.err = fn()
		}
		done <- r
	}()
	r := <-done
	return r.value, r.err
}

func enter(ns string) error {
	f, err := os.Open("/run/netns/" + ns)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("setns", unix.Setns(int(f.Fd()), unix.CLONE_NEWNET))
}

// removeLeftovers deletes namespaces of ours whose process is gone.
func removeLeftovers() error {
	names, err := os.ReadDir("/run/netns")
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, entry := range names {
		rest, ours := strings.CutPrefix(entry.Name(), prefix)
		pid, _, _ := strings.Cut(rest, "-")
		if n, err := strconv.Atoi(pid); !ours || err != nil || unix.Kill(n, 0) == nil {
			continue
		}
		if err := run("ip", "netns", "del", entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

func ipIn(ns, args string) []string { return append([]string{"ip", "-n", ns}, strings.Fields(args)...) }

func (w *Net) nft(node int, command string) []string {
	return append(w.Exec(node), "nft", command)
}

func runAll(lines ...[]string) error {
	for _, line := range lines {
		if err := run(line...); err != nil {
			return err
		}
	}
	return nil
}

func run(line ...string) error {
	if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(line, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
