//go:build !linux

package dir

import "github.com/cockroachdb/pebble/v2/vfs"

func setDirect(vfs.File, bool) bool { return false }

func aligned([]byte) bool { return false }
