// Command tools drives the clients of test/clients that are command lines: kcat and Kafka's own console and performance tools.
// The protocol is in that folder's doc.go. KAFKA_LIBS names the folder of Kafka's jars.
//
//	main.go     the rounds, which all share
//	kcat.go     kcat: one consumer for all rounds; a producer process for each topic and round, since kcat reads its input in
//	            blocks and would keep the end of a round to itself
//	console.go  kafka-console-producer and -consumer: the same processes from the first round to the last
//	perf.go     kafka-producer-perf-test and -consumer-perf-test
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

const patience = 2 * time.Minute

// job is what the harness asked for.
type job struct {
	broker, prefix  string
	rounds, records int
	stdin           *bufio.Reader
}

func main() {
	rounds, err1 := strconv.Atoi(os.Args[4])
	records, err2 := strconv.Atoi(os.Args[5])
	if err := errors.Join(err1, err2); err != nil {
		panic(err) // the harness is wrong
	}
	j := job{os.Args[2], os.Args[3], rounds, records, bufio.NewReader(os.Stdin)}
	run := map[string]func(job) error{"kcat": kcat, "console": console, "perf": perf}[os.Args[1]]
	if err := run(j); err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

func (j job) topics() []string {
	var topics []string
	for _, codec := range codecs {
		topics = append(topics, j.prefix+"-"+codec)
	}
	return topics
}

func (j job) createTopics(topics ...string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(j.broker))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	created, err := kadm.NewClient(client).CreateTopics(ctx, 3, 1, nil, topics...)
	if err != nil {
		return err
	}
	return created.Error()
}

// half ends a round and waits for the next.
func (j job) half() error {
	fmt.Println("HALF")
	_, err := j.stdin.ReadString('\n')
	return err
}

// rounds produces with the given function and waits until the consumer has all.
func (j job) inRounds(c *consumer, produce func(codec string, from, to int) error) error {
	for round := range j.rounds {
		if round > 0 {
			if err := j.half(); err != nil {
				return err
			}
		}
		for _, codec := range codecs {
			if err := produce(codec, round*j.records, (round+1)*j.records); err != nil {
				return fmt.Errorf("produce %s: %w", codec, err)
			}
		}
		if err := c.wait((round + 1) * j.records * len(codecs)); err != nil {
			return err
		}
	}
	if err := c.end(); err != nil {
		return err
	}
	fmt.Printf("OK records=%d\n", len(c.seen))
	return nil
}

// body is key and value of record i: expected(text, codec, i) of the harness.
func body(codec string, i int) (key, value string) {
	repeats := i % 50
	if i%97 == 96 {
		repeats = 5000
	}
	return "k" + strconv.Itoa(i%17), fmt.Sprintf("%s-%d-%s", codec, i, strings.Repeat("varve ", repeats))
}

// delivery is a record as a tool printed it.
type delivery struct {
	topic, key, value string
	partition         int
	offset            int64
	headers           []string // name, value, name, value
}

// consumer is a tool that prints what it consumes until it is interrupted.
type consumer struct {
	cmd     *exec.Cmd
	done    chan error
	changed chan struct{} // of size 1

	mu   sync.Mutex
	seen map[string]bool // guarded by mu until done
}

const lineLimit = 4 << 20

// consume starts the command; parse understands a line of its output.
func consume(cmd *exec.Cmd, parse func(line string) (delivery, error)) (*consumer, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &consumer{cmd: cmd, done: make(chan error, 1), changed: make(chan struct{}, 1), seen: map[string]bool{}}
	go func() { c.done <- errors.Join(c.read(out, parse), cmd.Wait()) }()
	return c, nil
}

func (c *consumer) read(out io.Reader, parse func(line string) (delivery, error)) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, lineLimit)
	for lines.Scan() {
		d, err := parse(lines.Text())
		if err != nil {
			return fmt.Errorf("the line %.200q: %w", lines.Text(), err)
		}
		var headers []string
		for i := 0; i+1 < len(d.headers); i += 2 {
			headers = append(headers, fmt.Sprintf("%s=x%x", d.headers[i], d.headers[i+1]))
		}
		c.mu.Lock()
		fmt.Printf("R %s %d %d x%x x%x %s\n", d.topic, d.partition, d.offset, d.key, d.value, strings.Join(headers, ","))
		c.seen[fmt.Sprintf("%s %d %d", d.topic, d.partition, d.offset)] = true
		c.mu.Unlock()
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
	return lines.Err()
}

// wait returns once so many different records have come.
func (c *consumer) wait(until int) error {
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		n := len(c.seen)
		c.mu.Unlock()
		if n >= until {
			return nil
		}
		select {
		case <-c.changed:
		case err := <-c.done:
			return fmt.Errorf("the consumer ended after %d of %d records: %w", n, until, err)
		case <-deadline:
			return errors.Join(fmt.Errorf("only %d of %d records came", n, until), c.cmd.Process.Kill())
		}
	}
}

// end interrupts the consumer, which commits and leaves its group.
func (c *consumer) end() error {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	err := <-c.done
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() == 130 { // a JVM after SIGINT
		return nil
	}
	return err
}
