package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func kcat(j job) error {
	if err := j.createTopics(j.topics()...); err != nil {
		return err
	}
	args := []string{"-b", j.broker, "-E", "-q", "-u", "-J", "-X", "auto.offset.reset=earliest", "-G", j.prefix + "-group"}
	c, err := consume(exec.Command("kcat", append(args, j.topics()...)...), parseKcat)
	if err != nil {
		return err
	}
	return j.inRounds(c, func(codec string, from, to int) error {
		var lines strings.Builder
		for i := from; i < to; i++ {
			key, value := body(codec, i)
			fmt.Fprintf(&lines, "%s:%s\n", key, value)
		}
		cmd := exec.Command("kcat", "-P", "-E", "-b", j.broker, "-t", j.prefix+"-"+codec, "-K", ":", "-H", "note=a text", "-z", codec,
			"-X", "enable.idempotence=true", "-X", "linger.ms=5")
		cmd.Stdin, cmd.Stderr = strings.NewReader(lines.String()), os.Stderr
		return cmd.Run()
	})
}

func parseKcat(line string) (delivery, error) {
	var m struct {
		Topic, Key, Payload string
		Partition           int
		Offset              int64
		Headers             []string
	}
	err := json.Unmarshal([]byte(line), &m)
	return delivery{topic: m.Topic, partition: m.Partition, offset: m.Offset, key: m.Key, value: m.Payload, headers: m.Headers}, err
}
