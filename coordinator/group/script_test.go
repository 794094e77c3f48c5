package group

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

func (a args) dur(name, def string) time.Duration {
	d, err := time.ParseDuration(a.or(name, def))
	if err != nil {
		panic(err)
	}
	return d
}

func (a args) opt(name string) *string {
	if v, ok := a[name]; ok {
		return &v
	}
	return nil
}

func (w *workbench) command(words []string) {
	a, rest := args{}, []string{}
	for _, word := range words[1:] {
		if k, v, ok := strings.Cut(word, "="); ok && !strings.Contains(k, "/") {
			a[k] = v
		} else {
			rest = append(rest, word)
		}
	}
	switch words[0] {
	case "config":
		w.cfg.InitialRebalanceDelay = a.dur("delay", "3s")
		w.cfg.MaxSize = a.num("max", DefaultConfig().MaxSize)
	case "advance":
		w.advance(a.dur("by", rest[0]))
	case "hold":
		w.hold = true
	case "release":
		w.hold = false
		w.settle(nil)
	case "lose":
		w.hold = false
		w.settle(map[string]error{"min-isr": kerr.NotEnoughReplicas, "storage": kerr.KafkaStorageError, "large": kerr.MessageTooLarge}[rest[0]])
	case "topic-gone":
		delete(w.topics, rest[0])
	case "topic-again":
		w.topics[rest[0]] = base.NewTopicID()
	case "reload":
		w.reload()
	default:
		w.request(words[0], a, rest)
	}
}

func (w *workbench) request(name string, a args, rest []string) {
	p := w.promise(a["as"])
	w.step(func(fx *runtime.Effects) {
		switch name {
		case "join":
			w.m.joinGroup(fx, Client{a.or("client", "c"), "/h"}, scriptJoin(a), p)
		case "sync":
			r := syncRequest("g", a["id"], int32(a.num("gen", 1)))
			r.Group, r.Version, r.InstanceID, r.Protocol, r.ProtocolType = a.or("g", "g"), int16(a.num("v", 5)), a.opt("inst"), a.opt("proto"), a.opt("type")
			for _, word := range rest {
				id, data, _ := strings.Cut(word, "/=")
				ga := kmsg.NewSyncGroupRequestGroupAssignment()
				ga.MemberID, ga.MemberAssignment = id, []byte(data)
				r.GroupAssignment = append(r.GroupAssignment, ga)
			}
			w.m.syncGroup(fx, r, p)
		case "heartbeat":
			r := kmsg.NewPtrHeartbeatRequest()
			r.Group, r.MemberID, r.Generation, r.InstanceID = a.or("g", "g"), a["id"], int32(a.num("gen", 1)), a.opt("inst")
			w.m.heartbeat(fx, r, p)
		case "leave":
			w.m.leaveGroup(fx, scriptLeave(a, rest), p)
		case "commit":
			w.scriptCommit(fx, a, rest, p)
		case "fetch":
			q := kmsg.NewOffsetFetchRequestGroup()
			q.Group, q.Topics = a.or("g", "g"), nil
			w.m.fetchGroup(fx, 9, &q, true, p)
		case "delete":
			w.m.deleteGroup(fx, a.or("g", "g"), p)
		case "describe":
			w.m.describeGroup(fx, int16(a.num("v", 6)), a.or("g", "g"), p)
		case "list":
			r := kmsg.NewPtrListGroupsRequest()
			if s := a.opt("state"); s != nil {
				r.StatesFilter = []string{*s}
			}
			if s := a.opt("type"); s != nil {
				r.TypesFilter = []string{*s}
			}
			w.m.listGroups(fx, r, p)
		case "offset-delete":
			w.scriptOffsetDelete(fx, a, rest, p)
		case "topics-deleted":
			delete(w.callers, p)
			w.m.topicsDeleted(fx, rest)
		default:
			w.t.Fatalf("unknown command %q", name)
		}
	})
}

func scriptJoin(a args) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID, r.InstanceID = int16(a.num("v", 9)), a.or("g", "g"), a["id"], a.opt("inst")
	r.ProtocolType = a.or("type", "consumer")
	r.SessionTimeoutMillis = int32(a.dur("session", "10s").Milliseconds())
	r.RebalanceTimeoutMillis = int32(a.dur("rebalance", "60s").Milliseconds())
	for _, spec := range strings.Split(a.or("p", "range"), ",") {
		if spec == "" {
			continue
		}
		name, topic, _ := strings.Cut(spec, ":")
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = name, subscription(topic)
		if topic == "garbage" {
			p.Metadata = []byte{0, 1, 255}
		}
		r.Protocols = append(r.Protocols, p)
	}
	return r
}

func scriptLeave(a args, rest []string) *kmsg.LeaveGroupRequest {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Version, r.Group, r.MemberID = int16(a.num("v", 5)), a.or("g", "g"), a["id"]
	for _, word := range rest {
		l := kmsg.NewLeaveGroupRequestMember()
		id, inst, static := strings.Cut(word, "/")
		if l.MemberID = id; static {
			l.InstanceID = &inst
		}
		r.Members = append(r.Members, l)
	}
	return r
}

func (w *workbench) scriptCommit(fx *runtime.Effects, a args, rest []string, p *runtime.Promise) {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.MemberID, r.InstanceID = int16(a.num("v", 9)), a.or("g", "g"), a["id"], a.opt("inst")
	r.Generation = int32(a.num("gen", -1))
	if v := a.opt("retain"); v != nil {
		r.RetentionTimeMillis = a.dur("retain", "").Milliseconds()
	}
	for _, word := range rest { // topic/partition=offset
		name, offset, _ := strings.Cut(word, "=")
		topic, partition, _ := strings.Cut(name, "/")
		ct, cp := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		ct.Topic = topic
		cp.Partition, cp.Offset = atoi(partition), int64(atoi(offset))
		if n := a.num("meta", 0); n > 0 {
			s := strings.Repeat("é", n)
			cp.Metadata = &s
		}
		ct.Partitions = append(ct.Partitions, cp)
		r.Topics = append(r.Topics, ct)
	}
	c := &Coordinator{opts: &w.opts}
	resp, topics, _ := c.commitResponse(r)
	w.m.offsetCommit(fx, r, topics, resp, p)
}

func (w *workbench) scriptOffsetDelete(fx *runtime.Effects, a args, rest []string, p *runtime.Promise) {
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = a.or("g", "g")
	for _, word := range rest {
		topic, partition, _ := strings.Cut(word, "/")
		dt, dp := kmsg.NewOffsetDeleteRequestTopic(), kmsg.NewOffsetDeleteRequestTopicPartition()
		dt.Topic, dp.Partition = topic, atoi(partition)
		dt.Partitions = append(dt.Partitions, dp)
		r.Topics = append(r.Topics, dt)
	}
	c := &Coordinator{opts: &w.opts}
	w.m.offsetDelete(fx, r, c.deleteResponse(r), p)
}

func atoi(s string) int32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("%q: %v", s, err))
	}
	return int32(n)
}
