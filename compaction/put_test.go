package compaction_test

import (
	"context"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering/tiertest"
)

// put writes an object past tiering.
func put(e *tiertest.Env, key string, data []byte) {
	e.T.Helper()
	_, err := e.Mem.Put(context.Background(), key, objstore.BodyOf(data))
	e.Check(err)
}
