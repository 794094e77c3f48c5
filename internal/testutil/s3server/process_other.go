//go:build !linux

package s3server

import "syscall"

// dieWithParent has no counterpart here: Stop is what ends the server.
func dieWithParent() *syscall.SysProcAttr { return nil }
