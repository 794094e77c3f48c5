package controller

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/script"
)

// TestScripts runs testdata/*.txt: each command is followed by what it left.
func TestScripts(t *testing.T) {
	script.Test(t, func(_ *testing.T, text string) string {
		var out strings.Builder
		b := &bench{cluster: Cluster{}, tracker: NewTracker(9 * time.Second), now: time.Unix(0, 0).UTC()}
		script.Play(text, &out, func(line string) {
			words := strings.Fields(line)
			out.WriteString("  " + b.command(words[0], words[1:]) + "\n")
		})
		return out.String()
	})
}

// bench is what a script works on: one partition, and a tracker.
type bench struct {
	state   State
	cluster Cluster
	rules   Rules
	tracker *Tracker
	regs    []Registration
	now     time.Time
}

func ids(s string) []base.BrokerID {
	var out []base.BrokerID
	for _, word := range strings.Split(s, ",") {
		if n, err := strconv.Atoi(word); err == nil {
			out = append(out, base.BrokerID(n))
		}
	}
	return out
}

var statuses = map[string]Status{"fence": Fenced, "wipe": Wiped, "leave": Leaving, "full": Full, "drain": Draining, "live": Live}

func (b *bench) command(name string, args []string) string {
	arg := func(n int) string {
		if n < len(args) {
			return args[n]
		}
		return ""
	}
	id, _ := strconv.Atoi(arg(0))
	var err error
	if status, ok := statuses[name]; ok {
		for _, id := range ids(arg(0)) {
			b.cluster[id] = status
		}
		b.state, _ = Next(b.state, b.cluster, b.rules)
		return b.show(nil)
	}
	switch name {
	case "new": // replicas min
		b.state = State{Replicas: ids(arg(0)), ISR: ids(arg(0)), Leader: ids(arg(0))[0]}
		b.rules.MinISR, _ = strconv.Atoi(arg(1))
		b.cluster = Cluster{}
		for id := base.BrokerID(1); id <= 6; id++ {
			b.cluster[id] = Live
		}
	case "min":
		b.rules.MinISR = id
		b.state, _ = Next(b.state, b.cluster, b.rules)
	case "allow-unclean":
		b.rules.Unclean = true
		b.state, _ = Next(b.state, b.cluster, b.rules)
	case "isr": // as the leader proposes it
		p := ISRChange{Leader: b.state.Leader, LeaderEpoch: b.state.LeaderEpoch, PartitionEpoch: b.state.PartitionEpoch, ISR: ids(arg(0))}
		if b.state, err = ChangeISR(b.state, p, b.cluster, b.rules); err == nil {
			b.state, _ = Next(b.state, b.cluster, b.rules)
		}
	case "stale-isr":
		_, err = ChangeISR(b.state, ISRChange{Leader: b.state.Leader, LeaderEpoch: b.state.LeaderEpoch, PartitionEpoch: b.state.PartitionEpoch - 1, ISR: ids(arg(0))}, b.cluster, b.rules)
	case "restart":
		b.state, _ = Restart(b.state, base.BrokerID(id), b.cluster, b.rules)
	case "reassign":
		b.state, err = Reassign(b.state, ids(arg(0)), b.cluster, b.rules)
	case "cancel":
		b.state, err = CancelReassignment(b.state, b.cluster, b.rules)
	case "preferred":
		b.state, err = ElectPreferred(b.state, b.cluster)
	case "unclean":
		b.state, err = ElectUnclean(b.state, b.cluster, b.rules)
	default:
		return b.liveness(name, base.BrokerID(id), args)
	}
	return b.show(err)
}

func (b *bench) show(err error) string {
	s := b.state
	line := fmt.Sprintf("leader %d epoch %d.%d replicas %v isr %v", s.Leader, s.LeaderEpoch, s.PartitionEpoch, s.Replicas, s.ISR)
	if len(s.ELR) > 0 {
		line += fmt.Sprintf(" elr %v", s.ELR)
	}
	if s.Reassigning() {
		line += fmt.Sprintf(" adding %v removing %v", s.Adding, s.Removing)
	}
	if err != nil {
		line += " error: " + err.Error()
	}
	return line
}

// liveness are the commands of the tracker; fences and unfences are taken as done.
func (b *bench) liveness(name string, id base.BrokerID, args []string) string {
	epoch := int64(1)
	var err error
	switch name {
	case "register": // ids, fenced
		for _, id := range ids(args[0]) {
			at := -1
			for n, r := range b.regs {
				if r.ID == id {
					at = n
				}
			}
			if at < 0 {
				b.regs = append(b.regs, Registration{ID: id})
				at = len(b.regs) - 1
			}
			b.regs[at].Epoch, b.regs[at].Fenced = b.regs[at].Epoch+1, len(args) > 1
		}
	case "after":
		d, _ := time.ParseDuration(args[0])
		b.now = b.now.Add(d)
	case "heartbeat", "goodbye", "noroom":
		if len(args) > 1 {
			epoch, _ = strconv.ParseInt(args[1], 10, 64)
		}
		err = b.tracker.Heartbeat(Heartbeat{ID: id, Epoch: epoch, Leaving: name == "goodbye", Full: name == "noroom"}, b.now)
	case "disconnected":
		b.tracker.Disconnected(id, epoch)
	case "refused":
		b.tracker.Probed(id, epoch, ProbeRefused)
	case "accepted":
		b.tracker.Probed(id, epoch, ProbeAccepted)
	case "newcomer":
		return fmt.Sprintf("%s: taken %v", b.now.Sub(time.Unix(0, 0)), b.tracker.Taken(id, b.now))
	default:
		return "unknown command " + name
	}
	b.tracker.Sync(b.regs, b.now)
	d := b.tracker.Decide(b.now)
	line := fmt.Sprintf("%s: fence %v unfence %v probe %v", b.now.Sub(time.Unix(0, 0)), names(d.Fence), names(d.Unfence), names(d.Probe))
	for _, r := range d.Room {
		line += fmt.Sprintf(" full %d %t", r.ID, r.Full)
		for n := range b.regs {
			if b.regs[n].ID == r.ID {
				b.regs[n].Full = r.Full
			}
		}
	}
	if !d.Again.IsZero() {
		line += fmt.Sprintf(" again at %s", d.Again.Sub(time.Unix(0, 0)))
	}
	for _, list := range [][]Registration{d.Fence, d.Unfence} {
		for _, r := range list {
			for n := range b.regs {
				if b.regs[n].ID == r.ID {
					b.regs[n].Fenced = !r.Fenced
				}
			}
		}
	}
	b.tracker.Sync(b.regs, b.now)
	if err != nil {
		line += " error: " + err.Error()
	}
	return line
}

func names(list []Registration) []base.BrokerID {
	var out []base.BrokerID
	for _, r := range list {
		out = append(out, r.ID)
	}
	return out
}
