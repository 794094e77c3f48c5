//go:build !linux

package proc

import "syscall"

// dieWithParent has no counterpart here: Stop and Kill are what ends a broker.
func dieWithParent() *syscall.SysProcAttr { return nil }

func awaitStop(int) error { return nil }
