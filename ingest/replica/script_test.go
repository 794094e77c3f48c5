package replica

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/script"
)

// TestScripts runs testdata/*.txt against a cluster: each command is followed by the whole state, and the invariants hold. In the
// state "|" stands at the high watermark, "!" behind what is not synced, value@epoch for a record, and 2:5 for a follower whose
// fetch offset is 5.
func TestScripts(t *testing.T) {
	script.Test(t, func(t *testing.T, text string) string {
		got, broken := runScript(t, text)
		if broken != "" {
			t.Errorf("an invariant is violated: %s\n%s", broken, got)
		}
		return got
	})
}

// runScript also checks the invariants after each command.
func runScript(t *testing.T, text string) (trace, broken string) {
	var out strings.Builder
	var c *cluster
	script.Play(text, &out, func(line string) {
		words := strings.Fields(line)
		if words[0] == "cluster" {
			c = newCluster(number(t, words[1]), number(t, words[2]))
			c.trace = func(s string) { out.WriteString("  - " + s + "\n") }
			c.images(c.nodes)
		} else {
			c.command(t, words)
		}
		out.WriteString(c.String())
		if msg := c.check(); msg != "" && broken == "" {
			broken = line + ": " + msg
		}
	})
	return out.String(), broken
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// images shows brokers the newest image.
func (c *cluster) images(nodes []*node) {
	for _, n := range nodes {
		if n.up {
			n.see(len(c.ctl.images) - 1)
		}
	}
}

// command runs one; most name a broker first.
//
//	append 1 [n]     the leader appends a batch of n records with acks=all     sync 1        it syncs everything
//	fetch 2          a follower's fetch is sent and stays on its way           pull 2        fetch, answer, truncate or append, sync
//	deliver          all messages on their way, in order                       drop          loses them
//	image [1 ...]    these brokers, or all, see the newest image               tick 1 31s    time passes, the leader looks for laggards
//	crash 1 [n]      n changes that are not synced survive                     start 1       comes back, registers, still fenced
//	wipe 1           the disk is lost                                          fence 1, unfence 1, elect 1, min 2: the controller
//	timeout 1        the answer to the leader's proposal does not come
func (c *cluster) command(t *testing.T, words []string) {
	var n *node
	arg := 0
	if len(words) > 1 && words[0] != "image" && words[0] != "min" {
		n = c.node(base.BrokerID(number(t, words[1])))
		if len(words) > 2 && words[0] != "tick" {
			arg = number(t, words[2])
		}
	}
	switch words[0] {
	case "append":
		if err := n.append(max(1, arg)); err != nil {
			c.note("%s", code(err))
		}
	case "sync":
		n.sync(len(n.ops))
	case "fetch":
		n.fetch()
	case "pull":
		n.fetch()
		c.deliver(len(c.inFlight)-1, 100)
		if last := len(c.inFlight) - 1; last >= 0 && c.inFlight[last].response != nil {
			c.note("%s", strings.TrimSpace(c.inFlight[last].String()))
			c.deliver(last, 100)
		} else if i := last - 1; i >= 0 && c.inFlight[i].response != nil {
			c.deliver(i, 100)
		}
		n.sync(len(n.ops))
	case "deliver":
		for len(c.inFlight) > 0 {
			c.note("%s", strings.TrimSpace(c.inFlight[0].String()))
			c.deliver(0, 100)
		}
	case "drop":
		c.inFlight = nil
	case "image":
		nodes := c.nodes
		if len(words) > 1 {
			nodes = nil
			for _, w := range words[1:] {
				nodes = append(nodes, c.node(base.BrokerID(number(t, w))))
			}
		}
		c.images(nodes)
	case "tick":
		d, err := time.ParseDuration(words[2])
		if err != nil {
			t.Fatal(err)
		}
		c.now = c.now.Add(d)
		n.effects(n.leader.Tick(c.now))
	case "timeout":
		n.timeOut()
	case "crash":
		n.crash(arg)
	case "start":
		n.start()
	case "wipe":
		n.wipe()
	default:
		c.controllerCommand(t, words, n)
	}
}

func (c *cluster) controllerCommand(t *testing.T, words []string, n *node) {
	switch words[0] {
	case "fence":
		c.ctl.fence(n.id)
	case "unfence":
		c.ctl.unfence(n.id)
	case "elect":
		c.ctl.elect(n.id)
		c.ctl.write(true)
	case "min":
		c.ctl.setMin(number(t, words[1]))
	default:
		t.Fatal(fmt.Errorf("unknown command %v", words))
	}
}
