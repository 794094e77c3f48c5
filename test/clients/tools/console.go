package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// java prepares one of Kafka's tools.
func java(main string, args ...string) *exec.Cmd {
	libs := filepath.Join(os.Getenv("KAFKA_LIBS"), "*")
	return exec.Command("nice", append([]string{"-n", "5", "java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", libs, main}, args...)...)
}

func console(j job) error {
	if err := j.createTopics(j.topics()...); err != nil {
		return err
	}
	c, err := consume(java("org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", j.broker,
		"--include", j.prefix+"-.*", "--group", j.prefix+"-group", "--from-beginning",
		"--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true",
		"--formatter-property", "print.headers=true", "--formatter-property", "print.key=true"),
		func(line string) (delivery, error) { return parseConsole(j.prefix, line) })
	if err != nil {
		return err
	}
	inputs := map[string]io.WriteCloser{}
	var producers []*exec.Cmd
	for _, codec := range codecs {
		p := java("org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", j.broker, "--topic", j.prefix+"-"+codec,
			"--compression-codec", codec, "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true")
		p.Stderr = os.Stderr // standard output holds prompts
		if inputs[codec], err = p.StdinPipe(); err != nil {
			return err
		}
		if err := p.Start(); err != nil {
			return err
		}
		producers = append(producers, p)
	}
	err = j.inRounds(c, func(codec string, from, to int) error {
		for i := from; i < to; i++ {
			key, value := body(codec, i)
			if _, err := fmt.Fprintf(inputs[codec], "seq:%d,note:a text\t%s\t%s\n", i, key, value); err != nil {
				return err
			}
		}
		return nil
	})
	for n, p := range producers {
		_ = inputs[codecs[n]].Close() // the end of the input ends the producer
		if e := p.Wait(); e != nil && err == nil {
			err = fmt.Errorf("producer of %s: %w", codecs[n], e)
		}
	}
	return err
}

// parseConsole reads "Partition:0<tab>Offset:7<tab>seq:1,note:a text<tab>k1<tab>value"; the tool does not print the topic, which
// the value begins with.
func parseConsole(prefix, line string) (delivery, error) {
	f := strings.Split(line, "\t")
	if len(f) != 5 {
		return delivery{}, fmt.Errorf("%d columns, not 5", len(f))
	}
	codec, _, _ := strings.Cut(f[4], "-")
	d := delivery{topic: prefix + "-" + codec, key: f[3], value: f[4]}
	var err error
	if d.partition, err = strconv.Atoi(strings.TrimPrefix(f[0], "Partition:")); err != nil {
		return d, err
	}
	if d.offset, err = strconv.ParseInt(strings.TrimPrefix(f[1], "Offset:"), 10, 64); err != nil {
		return d, err
	}
	for _, h := range strings.Split(f[2], ",") {
		name, value, _ := strings.Cut(h, ":")
		d.headers = append(d.headers, name, value)
	}
	return d, nil
}
