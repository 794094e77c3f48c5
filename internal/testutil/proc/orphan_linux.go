package proc

import "syscall"

// dieWithParent makes the kernel end a broker with the process that started it, however that ends; the wish outlives the exec of
// `ip netns exec`. In a process group of its own it does not get the terminal's Ctrl-C: who started it stops it, in order.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
