package proc

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/varvelog/varve/internal/testutil/ports"
)

// KafkaOptions configure StartKafka.
type KafkaOptions struct {
	Libs string            // folder of the jars (test/bench/install-kafka.sh)
	Dir  string            // must not hold another broker's data
	Set  map[string]string // server.properties beyond the least that one node needs
	Heap string            // as java takes it; default: 1G, as Kafka's start script
}

const kafkaStart = 90 * time.Second

// StartKafka formats a folder and runs Apache Kafka in it: one node, KRaft, its own defaults (1 GB of heap as its start
// script sets) but for the replication factors of the internal topics, which one node cannot meet.
func StartKafka(ctx context.Context, o KafkaOptions) (*Process, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	addrs, err := ports.Loopback(2)
	if err != nil {
		return nil, err
	}
	p := &Process{Name: "kafka", Dir: o.Dir, KafkaAddr: addrs[0]}
	config, err := writeKafkaConfig(o, map[string]string{
		"node.id": "1", "controller.quorum.voters": "1@" + addrs[1],
		"listeners": "PLAINTEXT://" + addrs[0] + ",CONTROLLER://" + addrs[1], "advertised.listeners": "PLAINTEXT://" + addrs[0],
		"offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
	})
	if err == nil {
		err = formatKafka(ctx, o, config)
	}
	if err != nil {
		return nil, err
	}
	if err := p.start(exec.Command("java", kafkaArgs(o, "kafka.Kafka", config)...)); err != nil {
		return nil, err
	}
	return p, p.endUnlessUp(p.await(ctx, kafkaStart, func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", p.KafkaAddr)
		if err != nil {
			return err
		}
		return conn.Close()
	}))
}

// formatKafka prepares the data directory. The cluster's id is always the same.
func formatKafka(ctx context.Context, o KafkaOptions, config string) error {
	format := exec.CommandContext(ctx, "java", kafkaArgs(o, "kafka.tools.StorageTool", "format", "-t", "dmFydmUtYmVuY2gtMDAwMQ", "-c", config)...)
	if out, err := format.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of kafka: %w\n%s", err, out)
	}
	return nil
}

func kafkaArgs(o KafkaOptions, main string, args ...string) []string {
	heap := cmp.Or(o.Heap, "1G")
	return append([]string{
		"-Xmx" + heap, "-Xms" + heap, "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", // bin/kafka-server-start.sh
		"-Dlog4j2.configurationFile=" + filepath.Join(o.Dir, "log4j2.yaml"), "-cp", filepath.Join(o.Libs, "*"), main,
	}, args...)
}

// writeKafkaConfig writes server.properties from what the place of the node says and what the options say.
func writeKafkaConfig(o KafkaOptions, place map[string]string) (string, error) {
	settings := map[string]string{
		"process.roles": "broker,controller", "controller.listener.names": "CONTROLLER", "log.dirs": filepath.Join(o.Dir, "data"),
	}
	maps.Copy(settings, place)
	maps.Copy(settings, o.Set)
	var b strings.Builder
	for k, v := range settings { // in any order: no setting is named twice
		fmt.Fprintf(&b, "%s=%s\n", k, v)
	}
	const log4j = "Configuration:\n  Appenders:\n    Console: {name: E, target: SYSTEM_ERR}\n  Loggers:\n    Root: {level: WARN, AppenderRef: [{ref: E}]}\n"
	if err := os.WriteFile(filepath.Join(o.Dir, "log4j2.yaml"), []byte(log4j), 0o644); err != nil {
		return "", err
	}
	config := filepath.Join(o.Dir, "server.properties")
	return config, os.WriteFile(config, []byte(b.String()), 0o644)
}
