package metadata

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The operations of a ConfigOp (KIP-339).
const (
	opSet      int8 = 0
	opDelete   int8 = 1
	opAppend   int8 = 2
	opSubtract int8 = 3
)

// IncrementalAlterConfigs applies ops to a resource, all or none.
func (s *Store) IncrementalAlterConfigs(ctx context.Context, r Resource, ops []ConfigOp, validateOnly bool) error {
	if err := checkOps(r, ops); err != nil {
		return err
	}
	return s.alter(ctx, r, validateOnly, func(image *Image, values map[string]string) error {
		for _, op := range ops {
			if err := image.applyOp(r, op, values); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReplaceConfigs is AlterConfigs: the given set replaces the resource's.
func (s *Store) ReplaceConfigs(ctx context.Context, r Resource, configs map[string]*string, validateOnly bool) error {
	var null []string
	for name, v := range configs {
		if v == nil {
			null = append(null, name)
		}
	}
	if len(null) > 0 {
		slices.Sort(null)
		return refuse(kerr.InvalidRequest, "Null value not supported for : %s", strings.Join(null, ","))
	}
	return s.alter(ctx, r, validateOnly, func(_ *Image, values map[string]string) error {
		clear(values)
		for name, v := range configs {
			values[name] = *v
		}
		return nil
	})
}

func checkOps(r Resource, ops []ConfigOp) error {
	seen := map[string]struct{}{}
	var null []string
	for _, op := range ops {
		if _, dup := seen[op.Name]; dup {
			return refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
		}
		seen[op.Name] = struct{}{}
		if op.Value == nil && op.Op != opDelete {
			null = append(null, op.Name)
		}
		if op.Op < opSet || op.Op > opSubtract {
			return refuse(kerr.InvalidRequest, "Unknown operation %d for config %s of %s", op.Op, op.Name, r.Name)
		}
	}
	if len(null) > 0 {
		return refuse(kerr.InvalidRequest, "Null value not supported for : %s", strings.Join(null, ","))
	}
	return nil
}

// catalog returns the table of a resource's settings.
func (l *localConfig) catalog(t ResourceType) *catalog {
	switch t {
	case ResourceTopic:
		return l.topic
	case ResourceBroker:
		return l.broker
	case ResourceGroup:
		return l.group
	default:
		return l.clientMetrics
	}
}

// applyOp changes values, which are those set on the resource so far.
func (i *Image) applyOp(r Resource, op ConfigOp, values map[string]string) error {
	switch op.Op {
	case opSet:
		values[op.Name] = *op.Value
		return nil
	case opDelete:
		delete(values, op.Name)
		return nil
	}
	c := i.local.catalog(r.Type)
	s, ok := c.get(op.Name)
	if !ok || s.kind != kindList {
		verb := "APPEND"
		if op.Op == opSubtract {
			verb = "SUBTRACT"
		}
		// "SUBTRACT to" is Kafka's wording (ConfigurationControlManager.incrementalAlterConfigResource).
		return refuse(kerr.InvalidConfig, "Can't %s to key %s because its type is not LIST.", verb, op.Name)
	}
	current, ok := values[op.Name]
	if !ok {
		if r.Type == ResourceBroker {
			current, _ = i.broker.Get(op.Name)
		} else {
			current = i.broker.values.inherited(s)
		}
	}
	parts := splitList(current)
	for _, element := range splitList(*op.Value) {
		switch {
		case op.Op == opSubtract:
			parts = slices.DeleteFunc(parts, func(p string) bool { return p == element })
		case !slices.Contains(parts, element):
			parts = append(parts, element)
		}
	}
	values[op.Name] = strings.Join(parts, ",")
	return nil
}

// alter changes what is set on a resource, by compare-and-swap on its key.
func (s *Store) alter(ctx context.Context, r Resource, validateOnly bool, edit func(*Image, map[string]string) error) error {
	if err := s.Image().checkResource(r, true); err != nil {
		return err
	}
	for range casAttempts {
		kv, ok, err := s.kv.Get(ctx, configKey(r))
		if err != nil {
			return kvError(err, "read the configuration of %s", r.Name)
		}
		was := map[string]string{}
		if ok {
			if was, err = decode[map[string]string](kv); err != nil {
				return err
			}
		}
		image := s.Image()
		values := maps.Clone(was)
		if err := edit(image, values); err != nil {
			return err
		}
		if err := image.validateConfigs(r, was, values); err != nil {
			return err
		}
		if validateOnly || maps.Equal(was, values) {
			return nil
		}
		committed, err := s.writeConfigs(ctx, r, kv.ModRevision, values)
		if err != nil || committed {
			return err
		}
		if err := s.Image().checkResource(r, true); err != nil {
			return err
		}
	}
	return fmt.Errorf("alter the configuration of %s: %w", r.Name, errLostRace)
}

func (s *Store) writeConfigs(ctx context.Context, r Resource, revision int64, values map[string]string) (bool, error) {
	cmps := []Cmp{Unchanged(configKey(r), revision)}
	if r.Type == ResourceTopic {
		cmps = append(cmps, Exists(topicKey(r.Name)))
	}
	op := Put(configKey(r), encode(values))
	if len(values) == 0 {
		op = Delete(configKey(r))
	}
	return s.write(ctx, "alter configs", cmps, []Op{op})
}

func (i *Image) validateConfigs(r Resource, was, values map[string]string) error {
	switch r.Type {
	case ResourceTopic:
		return i.broker.validateTopicConfigs(was, values)
	case ResourceBroker:
		return i.local.validateBrokerConfigs(values)
	case ResourceGroup:
		return i.broker.validateGroupConfigs(values)
	default:
		return i.local.validateClientMetrics(r.Name, values)
	}
}

// checkResource answers for resources that do not exist, or not here.
func (i *Image) checkResource(r Resource, alter bool) error {
	switch r.Type {
	case ResourceTopic:
		if err := ValidateTopicName(r.Name); err != nil {
			return err
		}
		if _, ok := i.Topic(r.Name); !ok {
			return refuse(kerr.UnknownTopicOrPartition, "%s", kerr.UnknownTopicOrPartition.Description)
		}
		return nil
	case ResourceBroker, ResourceBrokerLogger:
		own := strconv.Itoa(int(i.local.id))
		if r.Name == own || r.Name == "" && r.Type == ResourceBroker {
			if r.Type == ResourceBrokerLogger && alter {
				return refuse(kerr.InvalidRequest, "Log levels are set with varve's own flags")
			}
			return nil
		}
		return refuse(kerr.InvalidRequest, "Unexpected broker id, expected %s or empty string, but received %s", own, r.Name)
	case ResourceGroup:
		if r.Name == "" {
			return refuse(kerr.InvalidRequest, "Default group resources are not allowed.")
		}
		return nil
	case ResourceClientMetrics:
		return nil
	default:
		return refuse(kerr.InvalidRequest, "Unexpected resource type %d", r.Type)
	}
}
