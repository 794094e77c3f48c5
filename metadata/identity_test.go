package metadata_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// A broker of another cluster, and one whose build does not know the metadata's level, are refused before they write anything.
func TestStrangersAreRefused(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	t.Cleanup(kv.Close)
	f := func(what, cluster, want string) {
		t.Helper()
		_, before, err := kv.List(t.Context(), "/")
		if err != nil {
			t.Fatal(err)
		}
		s, err := metadata.Open(t.Context(), metadata.Options{KV: kv, BrokerID: 1, Cluster: cluster})
		if err == nil {
			defer s.Close()
		}
		if early := metadata.CheckCluster(t.Context(), kv, cluster); (early == nil) != (err == nil) {
			t.Errorf("%s: before it joins: %v, then: %v", what, early, err)
		}
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		if !errors.Is(err, metadata.ErrStranger) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		if _, after, _ := kv.List(t.Context(), "/"); after != before {
			t.Errorf("%s: it wrote: revision %d, then %d", what, before, after)
		}
	}
	put := func(record string) {
		t.Helper()
		if _, err := kv.Txn(t.Context(), nil, []metadata.Op{metadata.Put("/varve/image/cluster", []byte(record))}); err != nil {
			t.Fatal(err)
		}
	}
	f("data of a cluster whose metadata is lost", "a", "etcd holds none")
	f("a new cluster", "", "")
	f("data of another cluster", "a", "is of cluster a, the voters are of cluster ")
	put(`{"id":"a"}`)
	f("a cluster of the first level, which is not written down", "a", "")
	f("no data yet", "", "")
	put(`{"id":"a","level":2}`)
	f("a level of a later version", "a", "level 2, this build knows 1 to 1")
	f("a level of a later version, without data", "", "level 2, this build knows 1 to 1")
}
