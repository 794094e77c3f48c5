package proc

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent makes the kernel end a broker with the process that started it, however that ends; the wish outlives the exec of
// `ip netns exec`. In a process group of its own it does not get the terminal's Ctrl-C: who started it stops it, in order.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// awaitStop waits until SIGSTOP has stopped a child, or it has ended. Until one of its threads has taken the signal the others run on: on
// a busy machine long enough to answer a few requests.
func awaitStop(pid int) error {
	for {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
