package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newTopicCommand(a *app) *cobra.Command {
	return noun("topic", "Create, look at, change and delete topics",
		newTopicCreate(a), newTopicList(a), newTopicDescribe(a), newTopicAlter(a), newTopicPartitions(a), newTopicDelete(a))
}

// outcome is one line of the answer of a command that does something to several things.
type outcome struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"`
}

// outcomes collects what became of each thing a command was asked to do.
type outcomes struct {
	did  string // "created"
	list []outcome
}

func (o *outcomes) add(name string, err error, detail string) {
	r := outcome{Name: name}
	if err != nil {
		r.Error = err.Error()
		if detail != "" && !strings.Contains(r.Error, detail) {
			r.Error += " (" + detail + ")"
		}
	}
	o.list = append(o.list, r)
}

// report prints all and fails where one failed.
func (a *app) report(o outcomes) error {
	failed := 0
	for _, r := range o.list {
		if r.Error == "" {
			a.say("%s %s", o.did, r.Name)
			continue
		}
		failed++
		a.warn("%s: %s", r.Name, r.Error)
	}
	if a.output == "json" {
		if err := a.printJSON(o.list); err != nil {
			return err
		}
	}
	if failed > 0 {
		return errReported
	}
	return nil
}

// parsePairs reads name=value arguments.
func parsePairs(flag string, pairs []string) (names, values []string, err error) {
	for _, p := range pairs {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, nil, fmt.Errorf("--%s %q: write name=value", flag, p)
		}
		names, values = append(names, name), append(values, value)
	}
	return names, values, nil
}
