package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

func newConfigCommand(a *app) *cobra.Command {
	return noun("config", "Look at and change the settings of topics and brokers", newConfigDescribe(a), newConfigAlter(a))
}

// entity is what a config command is about: `topic NAME`, `broker ID`, or `broker default`, the cluster-wide setting.
type entity struct {
	topic   string
	brokers []int32 // empty: the cluster-wide default
}

func parseEntity(args []string) (entity, error) {
	kind, name := args[0], args[1]
	switch {
	case kind == "topic":
		return entity{topic: name}, nil
	case kind == "broker" && name == "default":
		return entity{}, nil
	case kind == "broker":
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			return entity{}, fmt.Errorf("broker %q: give its number, or default", name)
		}
		return entity{brokers: []int32{int32(id)}}, nil
	}
	return entity{}, fmt.Errorf("%q has no settings: say topic NAME, broker ID or broker default", kind)
}
