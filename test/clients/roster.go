package main

import (
	"os"
	"path/filepath"
)

// client is a program that speaks the protocol of doc.go.
type client struct {
	name, version string
	shape         shape
	command       []string
	env           []string
}

// roster lists the clients. The versions are those that install.sh pins.
func roster(source string) ([]client, error) {
	source, err := filepath.Abs(source)
	if err != nil {
		return nil, err
	}
	tools := os.Getenv("VARVE_TOOLS")
	if tools == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		tools = filepath.Join(home, ".cache", "varve-tools")
	}
	installed := filepath.Join(tools, "clients")
	in := func(parts ...string) string { return filepath.Join(append([]string{installed}, parts...)...) }
	java := func(version string) client {
		return client{name: "java-" + version, version: version, shape: full, command: []string{
			"nice", "-n", "5", "java", "-Xmx256m", "-cp", in("java-"+version, "classes") + ":" + in("java-"+version, "libs", "*"), "RoundTrip"}}
	}
	python := func(name, version, program string, s shape) client {
		return client{name: name, version: version, shape: s, command: []string{in("venv", "bin", "python"), "-u", filepath.Join(source, "python", program)}}
	}
	tool := func(name, version, which string, s shape) client {
		return client{name: name, version: version, shape: s, command: []string{in("bin", "tools"), which},
			env: []string{"KAFKA_LIBS=" + filepath.Join(tools, "kafka-4.3", "libs")}}
	}
	return []client{
		java("4.3.0"), java("3.9.1"), java("2.8.2"),
		tool("console", "4.3.0", "console", text),
		tool("perf", "4.3.0", "perf", counted),
		python("confluent-kafka", "2.16.1", "confluent.py", full),
		tool("kcat", "1.7.1", "kcat", oneLabel),
		{name: "franz-go", version: "1.22.2", shape: full, command: []string{in("bin", "franz")}},
		{name: "sarama", version: "1.61.1", shape: full, command: []string{in("bin", "sarama")}},
		{name: "kafkajs", version: "2.2.4", shape: noNulls, command: []string{"node", filepath.Join(source, "node", "roundtrip.js")},
			env: []string{"NODE_PATH=" + in("node", "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING=1"}},
		python("aiokafka", "0.14.0", "aio.py", full),
		python("kafka-python", "3.0.12", "kpython.py", noNulls),
	}, nil
}
