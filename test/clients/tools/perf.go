package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	perfRecords  = 40000 // for each codec
	perfPerRound = 1500 * time.Millisecond
)

// perf runs a load generator for each codec at once, slow enough to be at work in all rounds, and then consumes all. The
// generators are idempotent, so the log must hold exactly what they say they sent.
func perf(j job) error {
	if err := j.createTopics(j.topics()...); err != nil {
		return err
	}
	rate := float64(perfRecords) / (time.Duration(j.rounds+2) * perfPerRound).Seconds()
	var generators []*exec.Cmd
	outputs := make([]bytes.Buffer, len(codecs))
	for n, codec := range codecs {
		g := java("org.apache.kafka.tools.ProducerPerformance", "--topic", j.prefix+"-"+codec, "--num-records", strconv.Itoa(perfRecords),
			"--record-size", "100", "--throughput", strconv.Itoa(int(rate)), "--bootstrap-server", j.broker,
			"--command-property", "compression.type="+codec, "--command-property", "enable.idempotence=true")
		g.Stdout, g.Stderr = &outputs[n], os.Stderr
		if err := g.Start(); err != nil {
			return err
		}
		generators = append(generators, g)
	}
	for range j.rounds - 1 {
		time.Sleep(perfPerRound) // the generators are at work; no round of theirs could be waited for
		if err := j.half(); err != nil {
			return err
		}
	}
	total := 0
	for n, g := range generators {
		if err := g.Wait(); err != nil {
			return fmt.Errorf("generator of %s: %w: %s", codecs[n], err, outputs[n].String())
		}
		lines := strings.Split(strings.TrimSpace(outputs[n].String()), "\n")
		fmt.Fprintln(os.Stderr, lines[len(lines)-1])
		if !strings.HasPrefix(lines[len(lines)-1], strconv.Itoa(perfRecords)+" records sent") {
			return fmt.Errorf("generator of %s: %s", codecs[n], lines[len(lines)-1])
		}
		if err := j.consumePerf(codecs[n]); err != nil {
			return fmt.Errorf("consume %s: %w", codecs[n], err)
		}
		total += perfRecords
	}
	fmt.Printf("OK records=%d\n", total)
	return nil
}

// consumePerf reads a topic with the consumer's load generator and compares its count and the log's end with what was sent.
func (j job) consumePerf(codec string) error {
	topic := j.prefix + "-" + codec
	out, err := java("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", j.broker, "--topic", topic,
		"--num-records", strconv.Itoa(perfRecords), "--timeout", "20000", "--group", j.prefix+"-group-"+codec, "--hide-header").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	columns := strings.Split(lines[len(lines)-1], ", ")
	const count = 4 // start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg
	if len(columns) <= count || columns[count] != strconv.Itoa(perfRecords) {
		return fmt.Errorf("not %d records: %s", perfRecords, out)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(j.broker))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	sum := int64(0)
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	if sum != perfRecords {
		return fmt.Errorf("the log holds %d records, %d were sent", sum, perfRecords)
	}
	return nil
}
