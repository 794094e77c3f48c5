package proc

import "syscall"

// dieWithParent makes the kernel end a broker with the process that started it, however that ends; the wish outlives the exec of
// `ip netns exec`.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
