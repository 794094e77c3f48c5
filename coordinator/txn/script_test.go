package txn

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/script"
)

// TestScripts runs testdata/*.txt against a machine.
func TestScripts(t *testing.T) {
	script.Test(t, func(t *testing.T, text string) string {
		w := newWorkbench(t)
		script.Play(text, &w.trace, func(line string) { w.command(strings.Fields(line)) })
		return w.trace.String()
	})
}

// args are the words name=value of a command.
type args map[string]string

func (a args) or(name, def string) string {
	if v, ok := a[name]; ok {
		return v
	}
	return def
}

func (a args) num(name string, def int) int {
	n, err := strconv.Atoi(a.or(name, strconv.Itoa(def)))
	if err != nil {
		panic(err)
	}
	return n
}

// producer reads p=<id>/<epoch>.
func (a args) producer() (id int64, epoch int16) {
	id, epoch = -1, -1
	if v, ok := a["p"]; ok {
		if _, err := fmt.Sscanf(v, "%d/%d", &id, &epoch); err != nil {
			panic(v)
		}
	}
	return id, epoch
}

func (a args) who() producer {
	id, epoch := a.producer()
	return producer{a.or("id", "x"), base.ProducerID(id), epoch}
}

func millis(s string) int64 {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d.Milliseconds()
}

func (w *workbench) command(words []string) {
	a, rest := args{}, []string{}
	for _, word := range words[1:] {
		if k, v, ok := strings.Cut(word, "="); ok {
			a[k] = v
		} else {
			rest = append(rest, word)
		}
	}
	switch words[0] {
	case "advance":
		w.advance(time.Duration(millis(rest[0])) * time.Millisecond)
	case "hold":
		w.hold = true
	case "release":
		w.hold = false
		w.settle(nil)
	case "lose":
		w.hold = false
		w.settle(map[string]error{"min-isr": kerr.NotEnoughReplicas, "large": kerr.MessageTooLarge}[rest[0]])
	case "reload":
		w.reload()
	case "written":
		w.written(strings.Join(rest, ""))
	case "look":
		w.step(w.m.abortTimedOut)
	case "ids":
		w.noIDs = rest[0] == "none"
		w.giveID()
	case "seed": // a producer, as an older leader has left it
		t := &transaction{id: a.who().txnID, nextID: base.NoProducerID}
		t = t.initialised(a.who().id, a.who().epoch, noEpoch, 60_000, w.now.UnixMilli())
		w.step(func(fx *runtime.Effects) { w.m.put(fx, t) })
	default:
		w.request(words[0], a, rest)
	}
}

func (w *workbench) request(name string, a args, rest []string) {
	w.call(a["as"], func(fx *runtime.Effects, fresh base.ProducerID, p *runtime.Promise) {
		id := a.or("id", "x")
		switch name {
		case "init":
			r := kmsg.NewPtrInitProducerIDRequest()
			r.Version, r.TransactionalID, r.TransactionTimeoutMillis = 5, &id, int32(millis(a.or("timeout", "60s")))
			r.ProducerID, r.ProducerEpoch = a.producer()
			w.m.initProducerID(fx, r, fresh, p)
		case "add":
			w.m.addPartitions(fx, a.who(), scriptPartitions(rest), int16(a.num("v", version2)), p)
		case "verify":
			w.m.verifyPartitions(fx, a.who(), scriptPartitions(rest), p)
		case "commit", "abort":
			r := kmsg.NewPtrEndTxnRequest()
			r.Version, r.TransactionalID, r.Commit = int16(a.num("v", 5)), id, name == "commit"
			r.ProducerID, r.ProducerEpoch = a.producer()
			w.m.endTxn(fx, r, fresh, p)
		case "describe":
			w.m.describe(fx, id, p)
		case "list":
			r := kmsg.NewPtrListTransactionsRequest()
			r.Version, r.DurationFilterMillis = 2, int64(a.num("longer", -1))
			if s, ok := a["state"]; ok {
				r.StateFilters = strings.Split(s, ",")
			}
			if s, ok := a["like"]; ok {
				r.TransactionalIDPattern = &s
			}
			if _, ok := a["producer"]; ok {
				r.ProducerIDFilters = []int64{int64(a.num("producer", 0))}
			}
			f, unknown, bad := filterOf(r)
			if len(unknown) > 0 || bad != nil {
				w.printf("  unknown %v, bad %v", unknown, bad != nil)
			}
			w.m.list(fx, &f, p)
		default:
			w.t.Fatalf("unknown command %q", name)
		}
	})
}

func scriptPartitions(words []string) []base.TopicPartition {
	var out []base.TopicPartition
	for _, word := range words {
		topic, partition, _ := strings.Cut(word, "/")
		n, err := strconv.Atoi(partition)
		if err != nil {
			panic(word)
		}
		out = append(out, base.TopicPartition{Topic: topic, Partition: int32(n)})
	}
	return out
}
