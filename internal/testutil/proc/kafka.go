package proc

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// KafkaOptions configure StartKafka.
type KafkaOptions struct {
	Libs string            // folder of the jars (test/bench/install-kafka.sh)
	Dir  string            // must not hold another broker's data
	Set  map[string]string // server.properties beyond the least that one node needs
}

const kafkaStart = 90 * time.Second

// StartKafka formats a folder and runs Apache Kafka in it: one node, KRaft, its own defaults (1 GB of heap as its start
// script sets) but for the replication factors of the internal topics, which one node cannot meet.
func StartKafka(ctx context.Context, o KafkaOptions) (*Process, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(2)
	if err != nil {
		return nil, err
	}
	p := &Process{Name: "kafka", Dir: o.Dir, KafkaAddr: addrs[0]}
	config, err := writeKafkaConfig(o, addrs[0], addrs[1])
	if err != nil {
		return nil, err
	}
	format := exec.CommandContext(ctx, "java", kafkaArgs(o, "kafka.tools.StorageTool", "format", "-t", "dmFydmUtYmVuY2gtMDAwMQ", "-c", config)...)
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format the storage of kafka: %w\n%s", err, out)
	}
	if err := p.start(exec.Command("java", kafkaArgs(o, "kafka.Kafka", config)...)); err != nil {
		return nil, err
	}
	return p, p.await(ctx, kafkaStart, func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", p.KafkaAddr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func kafkaArgs(o KafkaOptions, main string, args ...string) []string {
	return append([]string{
		"-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", // bin/kafka-server-start.sh
		"-Dlog4j2.configurationFile=" + filepath.Join(o.Dir, "log4j2.yaml"), "-cp", filepath.Join(o.Libs, "*"), main,
	}, args...)
}

func writeKafkaConfig(o KafkaOptions, listener, controller string) (string, error) {
	settings := map[string]string{
		"process.roles": "broker,controller", "node.id": "1", "controller.quorum.voters": "1@" + controller,
		"listeners":            "PLAINTEXT://" + listener + ",CONTROLLER://" + controller,
		"advertised.listeners": "PLAINTEXT://" + listener, "controller.listener.names": "CONTROLLER",
		"log.dirs":                         filepath.Join(o.Dir, "data"),
		"offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
	}
	for k, v := range o.Set {
		settings[k] = v
	}
	var b strings.Builder
	for k, v := range settings {
		fmt.Fprintf(&b, "%s=%s\n", k, v)
	}
	const log4j = "Configuration:\n  Appenders:\n    Console: {name: E, target: SYSTEM_ERR}\n  Loggers:\n    Root: {level: WARN, AppenderRef: [{ref: E}]}\n"
	if err := os.WriteFile(filepath.Join(o.Dir, "log4j2.yaml"), []byte(log4j), 0o644); err != nil {
		return "", err
	}
	config := filepath.Join(o.Dir, "server.properties")
	return config, os.WriteFile(config, []byte(b.String()), 0o644)
}
