package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mains are the main classes of the scripts that Kafka ships.
var mains = map[string]string{
	"kafka-topics":          "org.apache.kafka.tools.TopicCommand",
	"kafka-configs":         "kafka.admin.ConfigCommand",
	"kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
	"kafka-get-offsets":     "org.apache.kafka.tools.GetOffsetShell",
	"kafka-delete-records":  "org.apache.kafka.tools.DeleteRecordsCommand",
	"kafka-log-dirs":        "org.apache.kafka.tools.LogDirsCommand",
	"kafka-features":        "org.apache.kafka.tools.FeatureCommand",
}

// tools is a JVM that runs the tools against one broker.
type tools struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startTools(libs, classes, dir string) (*tools, error) {
	const log4j = "Configuration:\n  Appenders:\n    Console: {name: E, target: SYSTEM_ERR}\n  Loggers:\n    Root: {level: OFF, AppenderRef: [{ref: E}]}\n"
	config := filepath.Join(dir, "tools-log4j2.yaml")
	if err := os.WriteFile(config, []byte(log4j), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("nice", "-n", "5", "java", "-Xmx256m", "-Duser.timezone=UTC", "-Dlog4j2.configurationFile="+config,
		"-cp", classes+":"+filepath.Join(libs, "*"), "AdminTools")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &tools{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

// run answers what a tool printed, with its exit status as the last line.
func (t *tools) run(name string, args []string) (string, error) {
	class, ok := mains[name]
	if !ok {
		return "", fmt.Errorf("no tool %s", name)
	}
	if _, err := fmt.Fprintln(t.in, strings.Join(append([]string{class}, args...), "\t")); err != nil {
		return "", err
	}
	var printed strings.Builder
	for {
		line, err := t.out.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("the JVM of the tools: %w", err)
		}
		if status, end := strings.CutPrefix(line, "\x01EXIT "); end {
			return printed.String() + "exit status " + status, nil
		}
		printed.WriteString(line)
	}
}

// stop ends the JVM: it ends with its input.
func (t *tools) stop() error {
	_ = t.in.Close() // Wait tells
	return t.cmd.Wait()
}
