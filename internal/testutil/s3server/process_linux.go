package s3server

import "syscall"

// dieWithParent makes the kernel end the server with the process that started it, however that ends; in a process
// group of its own it does not get the terminal's Ctrl-C, so that brokers can stop before it.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
