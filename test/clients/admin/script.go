package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	verbPatience = 30 * time.Second
	// Record i is spacing*i after the base, which is ago before the start: no boundary of time falls into a run.
	spacing = 10 * time.Minute
	ago     = 1000 * time.Minute
)

// side is one of the two systems.
type side struct {
	name, broker, dir string
	base              time.Time // of the records' timestamps, the same for both
	tools             *tools
	client            *kgo.Client
	members           map[string]*kgo.Client // by group
}

// step runs a line of commands.txt and answers what it printed.
func (s *side) step(ctx context.Context, line string) (string, error) {
	words := strings.Fields(s.fill(line))
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, "~", " ") // a blank inside an argument
	}
	name, args := words[0], words[1:]
	if _, tool := mains[name]; tool {
		return s.tools.run(name, append([]string{"--bootstrap-server", s.broker}, args...))
	}
	ctx, cancel := context.WithTimeout(ctx, verbPatience)
	defer cancel()
	switch name {
	case "reference": // COMMAND of Kafka's side alone
		if s.name != "kafka" {
			return "", nil
		}
		return s.step(ctx, strings.Join(args, " "))
	case "produce": // TOPIC RECORDS PARTITIONS
		return "", s.produce(ctx, args[0], atoi(args[1]), atoi(args[2]))
	case "commit": // GROUP TOPIC OFFSET-OF-PARTITION-0 ...
		return "", s.commit(ctx, args[0], args[1], args[2:])
	case "join": // GROUP TOPIC
		return "", s.join(ctx, args[0], args[1])
	case "leave": // GROUP
		s.members[args[0]].LeaveGroup()
		s.members[args[0]].Close()
		return "", s.await(ctx, args[0], "Empty")
	case "write": // FILE LINE ...
		return "", os.WriteFile(filepath.Join(s.dir, args[0]), []byte(strings.Join(args[1:], "\n")+"\n"), 0o644)
	}
	return "", fmt.Errorf("no verb %s", name)
}

var placeholder = regexp.MustCompile(`\{(time|ms):(\d+)\}`)

// fill replaces {dir}, {time:I} and {ms:I}, the moment half a spacing before record I.
func (s *side) fill(line string) string {
	line = strings.ReplaceAll(line, "{dir}", s.dir)
	return placeholder.ReplaceAllStringFunc(line, func(p string) string {
		m := placeholder.FindStringSubmatch(p)
		at := s.base.Add(spacing*time.Duration(atoi(m[2])) - spacing/2)
		if m[1] == "ms" {
			return strconv.FormatInt(at.UnixMilli(), 10)
		}
		return at.UTC().Format("2006-01-02T15:04:05.000")
	})
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("commands.txt: %s is no number", s))
	}
	return n
}

func (s *side) produce(ctx context.Context, topic string, records, partitions int) error {
	for i := range records {
		r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: []byte(strconv.Itoa(i)), Value: []byte("value"), Timestamp: s.base.Add(spacing * time.Duration(i))}
		if err := s.client.ProduceSync(ctx, r).FirstErr(); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	return nil
}

func (s *side) commit(ctx context.Context, group, topic string, offsets []string) error {
	var all kadm.Offsets
	for p, o := range offsets {
		all.Add(kadm.Offset{Topic: topic, Partition: int32(p), At: int64(atoi(o)), LeaderEpoch: -1})
	}
	return kadm.NewClient(s.client).CommitAllOffsets(ctx, group, all)
}

func (s *side) join(ctx context.Context, group, topic string) error {
	member, err := kgo.NewClient(kgo.SeedBrokers(s.broker), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ClientID("member"),
		kgo.DisableAutoCommit(), kgo.Balancers(kgo.RangeBalancer()))
	if err != nil {
		return err
	}
	s.members[group] = member
	return s.await(ctx, group, "Stable")
}

// await returns once the group has the state.
func (s *side) await(ctx context.Context, group, state string) error {
	for {
		described, err := kadm.NewClient(s.client).DescribeGroups(ctx, group)
		if err != nil {
			return fmt.Errorf("wait for %s of %s: %w", state, group, err)
		}
		if described[group].State == state {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}
