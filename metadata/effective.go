package metadata

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// Kafka's ConfigSource on the wire.
const (
	sourceTopic          int8 = 1
	sourceBroker         int8 = 2
	sourceClusterDefault int8 = 3
	sourceStatic         int8 = 4
	sourceDefault        int8 = 5
	sourceClientMetrics  int8 = 7
	sourceGroup          int8 = 8
)

// localConfig is what this process was started with. It does not change.
type localConfig struct {
	*catalogs
	id     base.BrokerID
	static map[string]string
}

// newLocalConfig checks the settings given at the start; the error names the nearest setting where one is unknown.
func newLocalConfig(id base.BrokerID, static map[string]string) (*localConfig, error) {
	l := &localConfig{catalogs: newCatalogs(), id: id, static: static}
	for name, raw := range static {
		s, ok := l.broker.get(name)
		if !ok {
			return nil, refuse(kerr.InvalidConfig, "unknown setting %q: did you mean %q?", name, l.broker.nearest(name))
		}
		if err := s.validate(raw); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// ValidateStatic checks settings as Open does, without a store: for the command line.
func ValidateStatic(static map[string]string) error {
	_, err := newLocalConfig(0, static)
	return err
}

func (l *localConfig) resource() string {
	return configName(Resource{Type: ResourceBroker, Name: strconv.Itoa(int(l.id))})
}

// sourced is a value and where it was set.
type sourced struct {
	name   string
	value  string
	source int8
}

// brokerValues is where a broker's settings come from, in order of precedence. It is immutable.
type brokerValues struct {
	local        *localConfig
	own, cluster map[string]string // dynamic
}

// sources lists where a setting or one of its synonyms is set, first the one that counts, without defaults.
func (b *brokerValues) sources(names ...string) []sourced {
	var out []sourced
	for _, from := range [...]struct {
		values map[string]string
		source int8
	}{{b.own, sourceBroker}, {b.cluster, sourceClusterDefault}, {b.local.static, sourceStatic}} {
		for _, name := range names {
			if v, ok := from.values[name]; ok {
				out = append(out, sourced{name, v, from.source})
			}
		}
	}
	return out
}

// value is the effective value of a broker setting; ok is false where it is null or unknown.
func (b *brokerValues) value(name string) (string, bool) {
	if set := b.sources(name); len(set) > 0 {
		return set[0].value, true
	}
	s, ok := b.local.broker.get(name)
	if !ok || s.def == unset {
		return "", false
	}
	return s.def, true
}

// inherited is the value of a topic or group setting that the resource does not set.
func (b *brokerValues) inherited(s *setting) string {
	if set := b.sources(s.synonyms...); len(set) > 0 {
		return inMillis(set[0].name, set[0].value)
	}
	if s.def == unset {
		return ""
	}
	return s.def
}

// inMillis converts the broker settings in hours and minutes that stand in for one in milliseconds.
func inMillis(name, raw string) string {
	unit := int64(0)
	switch {
	case strings.HasSuffix(name, ".hours"):
		unit = 3_600_000
	case strings.HasSuffix(name, ".minutes"):
		unit = 60_000
	default:
		return raw
	}
	n, err := strconv.ParseInt(strings.TrimSpace(raw), 10, 32)
	if err != nil {
		return raw
	}
	if n < 0 {
		return "-1"
	}
	return strconv.FormatInt(n*unit, 10)
}

// reconfigure computes this broker's settings, and the defaults of topics, anew.
func (i *Image) reconfigure() {
	own, _ := i.configs.get(i.local.resource())
	cluster, _ := i.configs.get("broker/" + clusterDefaultID)
	b := &BrokerConfig{values: brokerValues{local: i.local, own: own, cluster: cluster}}
	fill(b, func(name string) string {
		v, _ := b.values.value(name)
		return v
	}, i.local.broker)
	b.LeaderThrottledRate, b.FollowerThrottledRate = b.values.rate("leader.replication.throttled.rate"), b.values.rate("follower.replication.throttled.rate")
	i.broker = b
	i.defaults = b.topicConfig(nil)
}

// topicConfig computes the settings of a topic; the one without overrides is shared by all topics that have none.
func (i *Image) topicConfig(overrides map[string]string) *TopicConfig {
	if len(overrides) == 0 {
		return i.defaults
	}
	return i.broker.topicConfig(overrides)
}

// topicValue is the effective value of a topic's setting.
func (b *brokerValues) topicValue(overrides map[string]string, name string) string {
	if v, ok := overrides[name]; ok {
		return v
	}
	s, ok := b.local.topic.get(name)
	if !ok {
		panic(fmt.Sprintf("metadata: no topic setting %q", name))
	}
	return b.inherited(s)
}

func (b *BrokerConfig) topicConfig(overrides map[string]string) *TopicConfig {
	lookup := func(name string) string { return b.values.topicValue(overrides, name) }
	t := &TopicConfig{}
	fill(t, lookup, b.values.local.topic)
	policy := splitList(lookup("cleanup.policy"))
	t.Delete = slices.Contains(policy, "delete")
	t.Compact = slices.Contains(policy, "compact")
	t.LogAppendTime = strings.TrimSpace(lookup("message.timestamp.type")) == "LogAppendTime"
	t.LeaderThrottled = parseThrottledReplicas(lookup("leader.replication.throttled.replicas"))
	t.FollowerThrottled = parseThrottledReplicas(lookup("follower.replication.throttled.replicas"))
	t.SyncRelaxed = strings.TrimSpace(lookup("varve.sync")) == "relaxed"
	return t
}

// fill sets the fields of a struct that carry a `config` tag. A value that does not parse, which only an older or newer
// version could have stored, counts as the default.
func fill(dst any, lookup func(name string) string, c *catalog) {
	v := reflect.ValueOf(dst).Elem()
	for f := range v.NumField() {
		name := v.Type().Field(f).Tag.Get("config")
		if name == "" {
			continue
		}
		s, ok := c.get(name)
		if !ok {
			panic(fmt.Sprintf("metadata: field %s of %s: no setting %q", v.Type().Field(f).Name, v.Type(), name))
		}
		if !fillField(v.Field(f), strings.TrimSpace(lookup(name))) {
			fillField(v.Field(f), s.def)
		}
	}
}

func fillField(field reflect.Value, raw string) bool {
	switch field.Kind() {
	case reflect.Bool:
		field.SetBool(strings.EqualFold(raw, "true"))
	case reflect.String:
		field.SetString(raw)
	case reflect.Slice:
		field.Set(reflect.ValueOf(splitList(raw)))
	case reflect.Float64:
		n, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			return false
		}
		field.SetFloat(n)
	default:
		n, err := strconv.ParseInt(raw, 10, 64)
		if err != nil {
			return false
		}
		if field.OverflowInt(n) {
			n = math.MaxInt32
		}
		field.SetInt(n)
	}
	return true
}
