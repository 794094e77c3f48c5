package lint

import (
	"strings"
	"testing"
)

// mayImport is the import direction: a folder may import what its line names, folders below those, its own sub-folders,
// and internal/*. Tests of a folder follow the same line plus testMayImport. The line with the longest prefix counts.
var mayImport = []struct {
	folder string
	may    []string
}{
	{"cmd", []string{"broker", "client", "cmd", "objstore", "tiering", "ingest/hot", "record", "compaction"}},
	{"test", []string{"broker", "client", "cmd/varve/load", "objstore", "tiering", "ingest", "record", "compaction", "metadata"}},
	{"broker", []string{"kafka", "httpapi", "coordinator", "fetch", "compaction", "ingest", "tiering", "cache", "security", "metadata", "record", "objstore"}},
	{"kafka", []string{"coordinator", "fetch", "ingest", "metadata", "security", "record"}},
	{"httpapi", []string{"coordinator", "fetch", "ingest", "metadata", "security", "record"}},
	{"coordinator", []string{"metadata", "record"}}, // its log is an interface that it declares
	{"fetch", []string{"ingest", "tiering", "metadata", "record"}},
	{"compaction", []string{"tiering", "metadata", "objstore", "record"}},
	{"ingest", []string{"metadata", "record"}},
	{"tiering", []string{"cache", "objstore", "metadata", "record"}}, // never ingest: it declares Source
	{"cache", []string{"objstore"}},
	{"security", nil},
	{"metadata", nil},
	{"client", nil},
	{"record", nil},
	{"objstore", nil},
	{"internal/base", nil},
	{"internal/testutil", []string{"httpapi", "client", "objstore", "metadata", "record"}},
	{"internal", nil},
}

// testMayImport are leaves that any test may use as the other side of a seam.
var testMayImport = []string{"objstore", "metadata", "record", "ingest"}

// notInternal: what the SDK's users import must not drag our internals along.
var notInternal = []string{"client"}

func TestImportDirection(t *testing.T) {
	for _, s := range tree(t) {
		rule, may := ruleOf(s.dir)
		if rule == "" {
			t.Errorf("%s: folder %s has no line in the import table", s.path, s.dir)
			continue
		}
		for _, p := range s.imports() {
			dep, ours := strings.CutPrefix(p, module+"/")
			switch {
			case !ours, below(dep, []string{rule}), below(dep, may):
			case below(dep, []string{"internal"}) && !below(s.dir, notInternal):
			case s.test && below(dep, testMayImport):
			default:
				t.Errorf("%s: %s may not import %s", s.path, rule, dep)
			}
		}
	}
}

func ruleOf(dir string) (folder string, may []string) {
	for _, r := range mayImport {
		if below(dir, []string{r.folder}) && len(r.folder) > len(folder) {
			folder, may = r.folder, r.may
		}
	}
	return folder, may
}

// homes says where each outside dependency lives, so that it can be replaced in one place. Tests may use all of them.
var homes = []struct {
	dependency string // longest prefix counts
	homes      []string
}{
	{"github.com/cockroachdb/pebble/v2", []string{"ingest/hot"}},
	{"github.com/cockroachdb/pebble/v2/vfs", []string{"ingest/hot", "objstore/dir", "objstore/open", "cache", "broker", "internal/testutil/crashfs", "test/sim"}},
	{"go.etcd.io", []string{"metadata/etcdkv"}},
	{"go.uber.org/zap", []string{"metadata/etcdkv"}},        // etcd's logger
	{"google.golang.org/grpc", []string{"metadata/etcdkv"}}, // what etcd answers with
	{"github.com/minio/minio-go", []string{"objstore/s3"}},
	{"github.com/klauspost/compress", []string{"record"}},
	{"github.com/pierrec/lz4", []string{"record"}},
	{"github.com/twmb/franz-go/pkg/kmsg", []string{"kafka", "ingest/replica", "coordinator", "cmd", "test"}},
	{"github.com/twmb/franz-go/pkg/kgo", []string{"client", "cmd", "test"}},
	{"github.com/twmb/franz-go/pkg/kadm", []string{"client", "cmd", "test"}},
	{"github.com/twmb/franz-go/pkg/kerr", []string{"."}}, // the vocabulary of expected errors
	{"github.com/twmb/franz-go/pkg/kbin", []string{"kafka", "record", "coordinator", "ingest"}},
	{"github.com/spf13", []string{"cmd"}},
	{"go.opentelemetry.io/otel/sdk", []string{"internal/telemetry"}},
	{"go.opentelemetry.io/otel/exporters", []string{"internal/telemetry"}},
	{"go.opentelemetry.io/otel", []string{"."}}, // the API: a Meter or a Tracer that was passed in
	{"github.com/prometheus", []string{"internal/telemetry"}},
	{"github.com/google/uuid", []string{"."}},
	{"gopkg.in/yaml.v3", []string{"broker", "cmd"}},
	{"golang.org/x/sync", []string{"."}},
	{"golang.org/x/sys", []string{"ingest/hot", "objstore", "cache", "broker", "kafka", "metadata/etcdkv", "cmd", "test", "internal/testutil"}},
}

func TestOneDependencyOneHome(t *testing.T) {
	for _, s := range tree(t) {
		if s.test || s.dir == "internal/deps" {
			continue
		}
		for _, p := range s.imports() {
			first, _, _ := strings.Cut(p, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(p, module) {
				continue // the standard library, or ours
			}
			if dep, at := homesOf(p); dep == "" {
				t.Errorf("%s: %s has no home: add a line to the table in internal/lint", s.path, p)
			} else if at[0] != "." && !below(s.dir, at) {
				t.Errorf("%s: %s lives in %s only", s.path, p, strings.Join(at, ", "))
			}
		}
	}
}

func homesOf(p string) (dependency string, at []string) {
	for _, h := range homes {
		if (p == h.dependency || strings.HasPrefix(p, h.dependency+"/")) && len(h.dependency) > len(dependency) {
			dependency, at = h.dependency, h.homes
		}
	}
	return dependency, at
}

// The only component that deletes from the bucket is compaction (I6); broker hands it the Deleter.
func TestOneDeleter(t *testing.T) {
	for _, s := range tree(t) {
		if s.test || below(s.dir, []string{"compaction", "objstore", "broker"}) {
			continue
		}
		for _, use := range qualified(s) {
			if use.path == module+"/objstore" && use.name == "Deleter" {
				t.Errorf("%s: objstore.Deleter is for compaction only", s.at(use.pos))
			}
		}
	}
}
