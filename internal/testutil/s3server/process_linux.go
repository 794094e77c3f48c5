package s3server

import "syscall"

// dieWithParent makes the kernel end the server with the process that started it, however that ends.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
