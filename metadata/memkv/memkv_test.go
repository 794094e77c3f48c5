package memkv_test

import (
	"testing"

	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/kvtest"
	"github.com/varvelog/varve/metadata/memkv"
)

func TestKV(t *testing.T) {
	kvtest.Run(t, kvtest.Subject{
		New: func(*testing.T) metadata.KV { return memkv.New(memkv.Options{}) },
		Compact: func(_ *testing.T, kv metadata.KV, revision int64) {
			kv.(*memkv.KV).Compact(revision)
		},
	})
}
