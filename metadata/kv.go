package metadata

import (
	"context"
	"errors"
)

// MaxTxnOps is the most compares, and the most operations, of one transaction: etcd's default limit.
const MaxTxnOps = 128

// ErrCompacted says that a watch cannot go on, because the history from its revision on is gone: list again.
var ErrCompacted = errors.New("metadata kv: revision compacted")

// KV is the strictly serializable store of small values that the cluster shares: etcd, or its twin in memory. A write that
// returns an error may or may not have happened. While no quorum answers, errors are context.DeadlineExceeded too, however long the
// caller would wait.
type KV interface {
	// Get reads one key, linearizably.
	Get(ctx context.Context, key string) (kv KeyValue, ok bool, err error)
	// List reads all keys with a prefix, sorted, as of one revision, which it returns. It reads in pages.
	List(ctx context.Context, prefix string) (kvs []KeyValue, revision int64, err error)
	// Txn applies ops, all or none, if every compare holds. No key is written twice in one transaction.
	Txn(ctx context.Context, cmps []Cmp, ops []Op) (TxnResult, error)
	// Watch delivers the changes below a prefix from a revision on (inclusive), in order, one Events per revision or
	// more, never a part of one. It returns when the watch stands; the channel is closed after an Events with Err set, and
	// when ctx ends.
	Watch(ctx context.Context, prefix string, fromRevision int64) <-chan Events
}

// KeyValue is one key as it was read. ModRevision is the revision of its last write, CreateRevision that of its first.
type KeyValue struct {
	Key            string
	Value          []byte
	CreateRevision int64
	ModRevision    int64
}

// CmpKind says what a compare looks at.
type CmpKind uint8

// The compares that the package needs: all are on revisions, never on values.
const (
	CmpModRevision    CmpKind = iota // the key's mod revision is Revision; 0: the key does not exist
	CmpCreateRevision                // the key's create revision is Revision; 0: the key does not exist
	CmpExists                        // the key exists, whatever its revision
)

// Cmp is one condition of a transaction.
type Cmp struct {
	Key      string
	Kind     CmpKind
	Revision int64
}

// Unchanged holds while the key's mod revision is revision.
func Unchanged(key string, revision int64) Cmp {
	return Cmp{Key: key, Kind: CmpModRevision, Revision: revision}
}

// Absent holds while the key does not exist.
func Absent(key string) Cmp { return Cmp{Key: key, Kind: CmpModRevision} }

// Exists holds while the key exists.
func Exists(key string) Cmp { return Cmp{Key: key, Kind: CmpExists} }

// Op writes or deletes one key.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
}

// Put sets a key.
func Put(key string, value []byte) Op { return Op{Key: key, Value: value} }

// Delete removes a key; it is no error where the key does not exist.
func Delete(key string) Op { return Op{Key: key, Delete: true} }

// TxnResult tells whether the compares held and the ops were applied, and the store's revision after that.
type TxnResult struct {
	Committed bool
	Revision  int64
}

// Event is one change of one key. A deleted key has only its name and the revision of the deletion as ModRevision.
type Event struct {
	KV      KeyValue
	Deleted bool
}

// Events are the changes of one or more whole revisions, in order, up to Revision. Err ends the watch: ErrCompacted where
// the caller must list again, anything else where it may also try to watch again from where it was.
type Events struct {
	Events   []Event
	Revision int64
	Err      error
}
