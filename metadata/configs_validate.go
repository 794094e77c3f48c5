package metadata

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// validateTopicConfigs checks the overrides of a topic as LogConfig.validate does, with its words. was is what stood
// before, nil where the topic is new. Where Varve allows more than Kafka it says so here: tiered topics may be compacted.
func (b *BrokerConfig) validateTopicConfigs(was, overrides map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		s, ok := b.values.local.topic.get(name)
		if !ok {
			return refuse(kerr.InvalidConfig, "Unknown topic config name: %s", name)
		}
		if err := s.validate(overrides[name]); err != nil {
			return err
		}
	}
	t := b.topicConfig(overrides)
	if t.MinCompactionLagMs > t.MaxCompactionLagMs {
		return refuse(kerr.InvalidConfig, "conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)",
			t.MinCompactionLagMs, t.MaxCompactionLagMs)
	}
	if !t.RemoteStorageEnable {
		if was != nil && b.topicConfig(was).RemoteStorageEnable && !t.RemoteDeleteOnDisable {
			return refuse(kerr.InvalidConfig, "It is invalid to disable remote storage without deleting remote data. "+
				"If you want to keep the remote data and turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. "+
				"If you want to disable remote storage and delete all remote data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`.")
		}
		return nil
	}
	return t.validateLocalRetention()
}

// validateLocalRetention holds hot retention below total retention (KIP-405), and equal to it where nothing more is
// uploaded (KIP-950).
func (t *TopicConfig) validateLocalRetention() error {
	for _, r := range []struct {
		name         string
		local, total int64
	}{{"retention.bytes", t.LocalRetentionBytes, t.RetentionBytes}, {"retention.ms", t.LocalRetentionMs, t.RetentionMs}} {
		if t.RemoteCopyDisable && r.local != -2 && r.local != r.total {
			return refuse(kerr.InvalidConfig, "When `remote.log.copy.disable` is set to true, the `local.%s` and `%s` must be set to the identical value "+
				"because there will be no more logs copied to the remote storage.", r.name, r.name)
		}
	}
	for _, r := range []struct {
		name         string
		local, total int64
	}{{"retention.ms", t.LocalRetentionMs, t.RetentionMs}, {"retention.bytes", t.LocalRetentionBytes, t.RetentionBytes}} {
		switch {
		case r.total == -1 || r.local == -2:
		case r.local == -1:
			return refuse(kerr.InvalidConfig, "Invalid value -1 for configuration local.%s: Value must not be -1 as %s value is set as %d.", r.name, r.name, r.total)
		case r.local > r.total:
			return refuse(kerr.InvalidConfig, "Invalid value %d for configuration local.%s: Value must not be more than %s property value: %d", r.local, r.name, r.name, r.total)
		}
	}
	return nil
}

// validateBrokerConfigs checks dynamic settings of a broker. Unknown names are accepted, as Kafka does for the sake of
// plug-ins; those that only a start can change are refused.
func (l *localConfig) validateBrokerConfigs(values map[string]string) error {
	var static []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		s, ok := l.brokerSetting(name)
		switch {
		case !ok:
		case s.mode != dynamic:
			static = append(static, name)
		default:
			if err := s.validate(values[name]); err != nil {
				err.Kafka = kerr.InvalidRequest
				return err
			}
		}
	}
	if len(static) > 0 {
		return refuse(kerr.InvalidRequest, "Cannot update these configs dynamically: [%s]", strings.Join(static, ", "))
	}
	return nil
}

// validateGroupConfigs checks the settings of a group, and that they lie within the broker's limits (GroupConfig.validate).
func (b *BrokerConfig) validateGroupConfigs(values map[string]string) error {
	group := b.values.local.group
	for _, name := range slices.Sorted(maps.Keys(values)) {
		s, ok := group.get(name)
		if !ok {
			return refuse(kerr.InvalidConfig, "Unknown group config name: %s", name)
		}
		if err := s.validate(values[name]); err != nil {
			return err
		}
		if err := b.withinLimits(s, values[name]); err != nil {
			return err
		}
	}
	return nil
}

// withinLimits compares group setting KIND.NAME with the broker's group.KIND.min.NAME and group.KIND.max.NAME.
func (b *BrokerConfig) withinLimits(s *setting, raw string) error {
	kindOfGroup, rest, _ := strings.Cut(s.name, ".")
	n, err := strconv.ParseInt(strings.TrimSpace(raw), 10, 64)
	if err != nil {
		return nil // no number: no limits
	}
	for _, limit := range []struct {
		which, words string
		sign         int64
	}{{"min", "greater than or equal to", 1}, {"max", "less than or equal to", -1}} {
		name := "group." + kindOfGroup + "." + limit.which + "." + rest
		bound, ok := b.Get(name)
		if !ok {
			continue
		}
		if v, err := strconv.ParseInt(bound, 10, 64); err == nil && (n-v)*limit.sign < 0 {
			return refuse(kerr.InvalidConfig, "%s must be %s %s", s.name, limit.words, name)
		}
	}
	return nil
}

// validateClientMetrics checks a subscription (KIP-714, ClientMetricsConfigs.validate).
func (l *localConfig) validateClientMetrics(name string, values map[string]string) error {
	if name == "" {
		return refuse(kerr.InvalidRequest, "Subscription name can't be empty")
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		s, ok := l.clientMetrics.get(key)
		if !ok {
			return refuse(kerr.InvalidRequest, "Unknown client metrics configuration: %s", key)
		}
		v, why := s.parse(values[key])
		if why != "" {
			return refuse(kerr.InvalidRequest, "Invalid value %s for configuration %s: %s", values[key], key, why)
		}
		if s.rule == nil {
			continue
		}
		if _, why := s.rule(key, v); why != "" {
			code := kerr.InvalidRequest
			if key == "match" {
				code = kerr.InvalidConfig
			}
			return refuse(code, "%s", why)
		}
	}
	return nil
}
