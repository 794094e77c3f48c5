package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// diskSource begins the name under which a small disk is mounted: varve-disk-PID, so that a later process sees whose it was.
const diskSource = "varve-disk-"

// fillerFile takes the free space of a full disk.
const fillerFile = "filler"

// SmallDisks are data directories of a bounded size: a tmpfs each, so what a broker syncs there survives its process, not the machine.
// They need root.
type SmallDisks struct {
	dirs []string
}

// Mount gives a node's data directory a size in bytes; call it before the node's first start.
func (d *SmallDisks) Mount(n *Node, size int64) error {
	source := diskSource + strconv.Itoa(os.Getpid())
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprint("size=", size), source, n.DataDir()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount a disk of %d bytes: %w: %s", size, err, strings.TrimSpace(string(out)))
	}
	d.dirs = append(d.dirs, n.DataDir())
	return nil
}

// Fill takes all free space of a node's disk but so many bytes.
func (d *SmallDisks) Fill(n *Node, leave int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(n.DataDir(), &st); err != nil {
		return err
	}
	take := int64(st.Bavail*uint64(st.Bsize)) - leave
	if take <= 0 {
		return nil
	}
	f, err := os.Create(filepath.Join(n.DataDir(), fillerFile))
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for take > 0 {
		k, err := f.Write(block[:min(take, int64(len(block)))])
		if errors.Is(err, syscall.ENOSPC) {
			return nil // the broker was faster
		}
		if err != nil {
			return err
		}
		take -= int64(k)
	}
	return nil
}

// Free ends a Fill.
func (d *SmallDisks) Free(n *Node) error {
	err := os.Remove(filepath.Join(n.DataDir(), fillerFile))
	if errors.Is(err, os.ErrNotExist) { // wiped meanwhile
		return nil
	}
	return err
}

// Close unmounts the disks, and what is on them is gone. End the brokers first.
func (d *SmallDisks) Close() error {
	var errs []error
	for _, dir := range d.dirs {
		errs = append(errs, unmount(dir))
	}
	d.dirs = nil
	return errors.Join(errs...)
}

// RemoveLeftovers unmounts small disks whose process is gone.
func RemoveLeftovers() error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return nil // no Linux, no disks
	}
	var errs []error
	for _, dir := range orphanedDisks(string(mounts), func(pid int) bool { return syscall.Kill(pid, 0) == nil }) {
		errs = append(errs, unmount(dir))
	}
	return errors.Join(errs...)
}

// orphanedDisks reads /proc/mounts.
func orphanedDisks(mounts string, alive func(pid int) bool) (dirs []string) {
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		pid, ours := strings.CutPrefix(f[0], diskSource)
		if n, err := strconv.Atoi(pid); ours && err == nil && !alive(n) {
			dirs = append(dirs, f[1])
		}
	}
	return dirs
}

// unmount lets go of a disk at once, also where a process still has a file of it open.
func unmount(dir string) error {
	if out, err := exec.Command("umount", "--lazy", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount %s: %w: %s", dir, err, strings.TrimSpace(string(out)))
	}
	return nil
}
