package tiering_test

import (
	"strings"
	"testing"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
)

func TestNames(t *testing.T) {
	id := strings.Repeat("0f", 16)
	names := []tiering.Name{
		{Kind: tiering.KindSegment, Log: 1<<64 - 1, Epoch: 1<<31 - 1, Base: 1<<63 - 1, Piece: 123456, ID: id},
		{Kind: tiering.KindSegment, Log: 1, ID: id},
		{Kind: tiering.KindPack, Broker: 1<<31 - 1, ID: id},
		{Kind: tiering.KindManifest, Broker: 1, ID: id},
		{Kind: tiering.KindArchive, Broker: 0, ID: id},
	}
	for i, n := range names {
		key := n.String()
		if got := tiering.ParseName(key); got != n {
			t.Errorf("%s parses as %+v, want %+v", key, got, n)
		}
		if err := objstore.CheckKey(key); err != nil {
			t.Error(err)
		}
		for j, o := range names {
			if i != j && strings.HasPrefix(key, o.String()+"/") {
				t.Errorf("%s is below %s", key, o)
			}
		}
	}
	for _, key := range []string{"", "v1/", "v1/segments/x", "v1/packs/1-x.pack", "v1/manifests/" + id + ".man", "v2/packs/1-" + id + ".pack", "v1/segments/0000000000000001/0-1-2.seg"} {
		if got := tiering.ParseName(key); got.Kind != tiering.KindUnknown {
			t.Errorf("%q parses as %+v", key, got)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("v1/packs/1-" + strings.Repeat("0f", 16) + ".pack")
	f.Add("v1/segments/0000000000000001/00000001-00000000000000000001-0000-" + strings.Repeat("0f", 16) + ".seg")
	f.Fuzz(func(t *testing.T, key string) {
		if n := tiering.ParseName(key); n.Kind != tiering.KindUnknown {
			if again := tiering.ParseName(n.String()); again != n {
				t.Fatalf("%q parses as %+v and then as %+v", key, n, again)
			}
		}
	})
}
