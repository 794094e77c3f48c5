package etcdkv

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/kvtest"
)

func start(t testing.TB, dir string) *Member {
	t.Helper()
	m, err := Start(t.Context(), Options{
		NodeID: 1, DataDir: dir, PeerAddr: "127.0.0.1:0", ClientAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func stop(t testing.TB, m *Member) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestKV(t *testing.T) {
	kvtest.Run(t, kvtest.Subject{
		New: func(t *testing.T) metadata.KV {
			m := start(t, t.TempDir())
			t.Cleanup(func() { stop(t, m) })
			return m.KV()
		},
		Compact: func(t *testing.T, kv metadata.KV, revision int64) {
			if _, err := kv.(*KV).local.Compact(t.Context(), revision); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestRestartKeepsAll(t *testing.T) {
	dir := t.TempDir()
	m := start(t, dir)
	if _, err := m.KV().Txn(t.Context(), nil, []metadata.Op{metadata.Put("/k", []byte("v"))}); err != nil {
		t.Fatal(err)
	}
	before, _, _ := m.KV().Get(t.Context(), "/k")
	stop(t, m)
	m = start(t, dir) // with other ports than before
	defer stop(t, m)
	after, ok, err := m.KV().Get(t.Context(), "/k")
	if err != nil || !ok || string(after.Value) != "v" || after.ModRevision != before.ModRevision {
		t.Fatalf("after the restart: %+v %v %v", after, ok, err)
	}
}

// TestSilentConnectionDoesNotHoldClose: someone who has dialled the client port, and says nothing, as a broker that is paused
// then, does not hold up the end of the member, which gives back its port and its directory.
func TestSilentConnectionDoesNotHoldClose(t *testing.T) {
	dir := t.TempDir()
	m := start(t, dir)
	addr := m.etcd.Clients[0].Addr().String()
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	answer, err := http.Get("http://" + addr + "/version") // accepted after it
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	stop(t, m)
	again, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	stop(t, start(t, dir))
}

func TestStartIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Start(ctx, Options{
		NodeID: 1, DataDir: t.TempDir(), PeerAddr: "127.0.0.1:0", ClientAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		t.Fatal("started under a context that had ended")
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	m := start(t, dir)
	defer stop(t, m)
	_, err := Start(t.Context(), Options{
		NodeID: 1, DataDir: dir, PeerAddr: "127.0.0.1:0", ClientAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
	})
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("a second member on the same directory: %v", err)
	}
}
