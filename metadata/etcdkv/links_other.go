//go:build !linux

package etcdkv

// tendLinks does nothing where connections cannot be found by their numbers: after a cut network a member is back when TCP tries again.
func (m *Member) tendLinks() {}
