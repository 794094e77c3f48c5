package metadata_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

func rows(t *testing.T, file string) [][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimRight(line, "\n"); !strings.HasPrefix(line, "#") {
			out = append(out, strings.Split(line, "\t"))
		}
	}
	return out
}

var kinds = map[string]int8{"BOOLEAN": 1, "STRING": 2, "INT": 3, "SHORT": 4, "LONG": 5, "DOUBLE": 6, "LIST": 7, "CLASS": 8, "PASSWORD": 9}

func describe(t *testing.T, s *metadata.Store, r metadata.Resource) map[string]metadata.ConfigEntry {
	t.Helper()
	entries, err := s.DescribeConfigs(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(entries, func(a, b metadata.ConfigEntry) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("entries are not sorted")
	}
	out := map[string]metadata.ConfigEntry{}
	for _, e := range entries {
		if e.Documentation == "" {
			t.Errorf("%s has no documentation", e.Name)
		}
		out[e.Name] = e
	}
	if len(out) != len(entries) {
		t.Error("a name is described twice")
	}
	return out
}

func show(v *string) string {
	if v == nil {
		return "<null>"
	}
	return *v
}

func TestTopicDefaultsAreKafkas(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	create(t, s, "t", 1)
	got := describe(t, s, metadata.Resource{Type: metadata.ResourceTopic, Name: "t"})
	differ := map[string]string{"remote.storage.enable": "true"}
	for _, r := range rows(t, "kafka43_topic_configs.tsv") {
		if strings.HasPrefix(r[0], "internal.") {
			continue
		}
		e, ok := got[r[0]]
		want := r[2]
		if ours, ok := differ[r[0]]; ok {
			want = ours
		}
		if !ok || show(e.Value) != want || e.Type != kinds[r[1]] || e.Source != 5 || e.ReadOnly || e.Sensitive {
			t.Errorf("%v: described as %+v %s", r, e, show(e.Value))
		}
		delete(got, r[0])
	}
	for name := range got {
		if !strings.HasPrefix(name, "varve.") {
			t.Errorf("%s is no setting of Kafka's", name)
		}
	}
}

func TestBrokerDefaultsAreKafkas(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	got := describe(t, s, metadata.Resource{Type: metadata.ResourceBroker, Name: "1"})
	for _, r := range rows(t, "kafka43_broker_configs.tsv") {
		e, ok := got[r[0]]
		want := strings.Replace(r[2], "<NODEFAULT>", "<null>", 1)
		if !ok || show(e.Value) != want || e.Type != kinds[r[1]] || e.Source != 5 || e.ReadOnly == (r[3] == "true") || e.Sensitive != (r[1] == "PASSWORD") {
			t.Errorf("%v: described as %+v %s", r, e, show(e.Value))
		}
	}
	if _, shown := got["producer.id.expiration.check.interval.ms"]; shown {
		t.Error("an internal setting is described")
	}
}

// TestSynonymsAreKafkas compares with what a live broker described (4.1): its values stand in the file, set as it had them.
func TestSynonymsAreKafkas(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	if _, err := s.CreateTopic(t.Context(), metadata.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1,
		Configs: map[string]string{"retention.ms": "3600000", "cleanup.policy": "delete"}}, false); err != nil {
		t.Fatal(err)
	}
	one := "1"
	cluster := metadata.Resource{Type: metadata.ResourceBroker}
	if err := s.IncrementalAlterConfigs(t.Context(), cluster, []metadata.ConfigOp{{Name: "min.insync.replicas", Value: &one}}, false); err != nil {
		t.Fatal(err)
	}
	got := describe(t, s, metadata.Resource{Type: metadata.ResourceTopic, Name: "t"})
	sources := map[int8]string{1: "DYNAMIC_TOPIC_CONFIG", 3: "DYNAMIC_DEFAULT_BROKER_CONFIG", 4: "STATIC_BROKER_CONFIG", 5: "DEFAULT_CONFIG"}
	for _, r := range rows(t, "kafka41_described_topic.tsv")[1:] {
		e := got[r[0]]
		var synonyms []string
		for _, syn := range e.Synonyms {
			synonyms = append(synonyms, sources[syn.Source]+":"+syn.Name)
		}
		want := ""
		if len(r) > 6 {
			want = r[6]
		}
		// Kafka's scheduler interval stands in for flush.ms, but it lists no synonym: neither do we.
		if strings.Join(synonyms, ",") != want || fmt.Sprintf("%d(%s)", e.Source, sources[e.Source]) != r[2] {
			t.Errorf("%s: source %d, synonyms %v, want %s and %s", r[0], e.Source, synonyms, r[2], want)
		}
		if r[0] != "remote.storage.enable" && show(e.Value) != r[1] {
			t.Errorf("%s = %s, want %s", r[0], show(e.Value), r[1])
		}
	}
}

func TestTopicValidationIsKafkas(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	create(t, s, "t", 1)
	for _, r := range rows(t, "kafka43_topic_validation.tsv") {
		name, value, _ := strings.Cut(r[0], "=")
		err := s.ReplaceConfigs(t.Context(), metadata.Resource{Type: metadata.ResourceTopic, Name: "t"}, map[string]*string{name: &value}, true)
		switch {
		case r[1] == "OK":
			// With tiering on, which Kafka's validation had off, local retention is bounded as well.
			if err != nil && name != "local.retention.ms" {
				t.Errorf("%s: %v, Kafka accepts", r[0], err)
			}
		case !errors.Is(err, kerr.InvalidConfig) || err.Error() != r[2]:
			t.Errorf("%s: %v\n want %s", r[0], err, r[2])
		}
	}
}

func TestTopicConflicts(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	f := func(message string, pairs ...string) {
		t.Helper()
		configs := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			configs[pairs[i]] = pairs[i+1]
		}
		_, err := s.CreateTopic(t.Context(), metadata.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: configs}, true)
		if message == "" && err == nil {
			return
		}
		if !errors.Is(err, kerr.InvalidConfig) || err.Error() != message {
			t.Errorf("%v: %v\nwant %s", pairs, err, message)
		}
	}
	f("conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)", "min.compaction.lag.ms", "100", "max.compaction.lag.ms", "50")
	f("Invalid value 200 for configuration local.retention.ms: Value must not be more than retention.ms property value: 100", "retention.ms", "100", "local.retention.ms", "200")
	f("Invalid value -1 for configuration local.retention.bytes: Value must not be -1 as retention.bytes value is set as 100.", "retention.bytes", "100", "local.retention.bytes", "-1")
	f("Invalid value -1 for configuration local.retention.ms: Value must not be -1 as retention.ms value is set as 604800000.", "local.retention.ms", "-1")
	f("When `remote.log.copy.disable` is set to true, the `local.retention.ms` and `retention.ms` must be set to the identical value because there will be no more logs copied to the remote storage.",
		"remote.log.copy.disable", "true", "local.retention.ms", "1")
	f("", "remote.storage.enable", "true", "cleanup.policy", "compact") // Kafka refuses: KIP-405 leaves compacted topics out
	f("", "remote.storage.enable", "false", "local.retention.ms", "-1")
	f("", "varve.sync", "relaxed", "varve.tiering.max.lag.ms", "5000")
	f("Invalid value never for configuration varve.sync: String must be one of: always, relaxed", "varve.sync", "never")
}

func TestStaticSettings(t *testing.T) {
	f := func(name, value, message string) {
		t.Helper()
		err := metadata.ValidateStatic(map[string]string{name: value})
		if (message == "") != (err == nil) || err != nil && err.Error() != message {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	f("log.retention.hours", "1", "")
	f("log.retention.hour", "1", `unknown setting "log.retention.hour": did you mean "log.retention.hours"?`)
	f("num.partition", "1", `unknown setting "num.partition": did you mean "num.partitions"?`)
	f("varve.hotbytes", "1", `unknown setting "varve.hotbytes": did you mean "varve.hot.bytes"?`)
	f("num.partitions", "many", "Invalid value many for configuration num.partitions: Not a number of type INT")
	f("num.partitions", "0", "Invalid value 0 for configuration num.partitions: Value must be at least 1")
	f("log.segment.bytes", "100", "Invalid value 100 for configuration log.segment.bytes: Value must be at least 1048576")
}

func TestPrecedence(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	s := open(t, kv, map[string]string{"log.retention.hours": "2", "log.segment.bytes": "2097152", "num.partitions": "7", "min.insync.replicas": "2"})
	topic := create(t, s, "t", -1)
	if len(topic.Partitions) != 7 || topic.Config.RetentionMs != 7_200_000 || topic.Config.SegmentBytes != 2097152 || topic.Config.MinInsyncReplicas != 2 {
		t.Fatalf("%d partitions, %+v", len(topic.Partitions), topic.Config)
	}
	alter := func(r metadata.Resource, name, value string) {
		t.Helper()
		if err := s.IncrementalAlterConfigs(t.Context(), r, []metadata.ConfigOp{{Name: name, Value: &value}}, false); err != nil {
			t.Fatal(err)
		}
	}
	retention := func() string {
		now, _ := s.Image().Topic("t")
		e := describe(t, s, metadata.Resource{Type: metadata.ResourceTopic, Name: "t"})["retention.ms"]
		if show(e.Value) != strconv.FormatInt(now.Config.RetentionMs, 10) {
			t.Errorf("described %s, in force %d", show(e.Value), now.Config.RetentionMs)
		}
		return fmt.Sprintf("%s from %d of %d", show(e.Value), e.Source, len(e.Synonyms))
	}
	f := func(want string) {
		t.Helper()
		if got := retention(); got != want {
			t.Errorf("retention.ms = %s, want %s", got, want)
		}
	}
	f("7200000 from 5 of 0") // Kafka, too, does not say that it comes from log.retention.hours
	alter(metadata.Resource{Type: metadata.ResourceBroker}, "log.retention.ms", "300000")
	f("300000 from 3 of 3")
	alter(metadata.Resource{Type: metadata.ResourceBroker, Name: "1"}, "log.retention.ms", "200000")
	f("200000 from 2 of 4")
	alter(metadata.Resource{Type: metadata.ResourceTopic, Name: "t"}, "retention.ms", "100000")
	f("100000 from 1 of 5")
	if got, _ := s.Image().Broker().Get("log.retention.ms"); got != "200000" {
		t.Errorf("log.retention.ms = %s", got)
	}
	if err := s.IncrementalAlterConfigs(t.Context(), metadata.Resource{Type: metadata.ResourceTopic, Name: "t"},
		[]metadata.ConfigOp{{Name: "retention.ms", Op: 1}}, false); err != nil {
		t.Fatal(err)
	}
	f("200000 from 2 of 4")
}

// TestBrokerSynonyms: what Kafka 4.3 lists for settings that stand in for each other.
func TestBrokerSynonyms(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), map[string]string{"log.roll.hours": "3"})
	value := "600000000"
	own := metadata.Resource{Type: metadata.ResourceBroker, Name: "1"}
	if err := s.IncrementalAlterConfigs(t.Context(), own, []metadata.ConfigOp{{Name: "log.retention.ms", Value: &value}}, false); err != nil {
		t.Fatal(err)
	}
	got := describe(t, s, own)
	f := func(name, want string) {
		t.Helper()
		var synonyms []string
		for _, syn := range got[name].Synonyms {
			synonyms = append(synonyms, fmt.Sprintf("%d:%s=%s", syn.Source, syn.Name, show(syn.Value)))
		}
		if have := strings.Join(synonyms, " "); have != want {
			t.Errorf("%s has the synonyms %q, want %q", name, have, want)
		}
	}
	f("log.retention.ms", "2:log.retention.ms=600000000 5:log.retention.hours=168")
	f("log.retention.minutes", "")
	f("log.retention.hours", "5:log.retention.hours=168")
	f("log.roll.ms", "")
	f("log.roll.hours", "4:log.roll.hours=3 5:log.roll.hours=168")
	f("num.partitions", "5:num.partitions=1")
}

func TestAlterConfigErrors(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	create(t, s, "t", 1)
	v := func(s string) *string { return &s }
	f := func(r metadata.Resource, op metadata.ConfigOp, code *kerr.Error, message string) {
		t.Helper()
		err := s.IncrementalAlterConfigs(t.Context(), r, []metadata.ConfigOp{op}, false)
		if code == nil {
			if err != nil {
				t.Errorf("%+v: %v", op, err)
			}
			return
		}
		if !errors.Is(err, code) || message != "" && err.Error() != message {
			t.Errorf("%v %+v: %v\nwant %s %s", r, op, err, code.Message, message)
		}
	}
	topic := metadata.Resource{Type: metadata.ResourceTopic, Name: "t"}
	f(topic, metadata.ConfigOp{Name: "nope", Value: v("1")}, kerr.InvalidConfig, "Unknown topic config name: nope")
	f(topic, metadata.ConfigOp{Name: "retention.ms", Op: 2, Value: v("1")}, kerr.InvalidConfig, "Can't APPEND to key retention.ms because its type is not LIST.")
	f(topic, metadata.ConfigOp{Name: "retention.ms", Op: 3, Value: v("1")}, kerr.InvalidConfig, "Can't SUBTRACT to key retention.ms because its type is not LIST.")
	f(topic, metadata.ConfigOp{Name: "retention.ms"}, kerr.InvalidRequest, "Null value not supported for : retention.ms")
	f(metadata.Resource{Type: metadata.ResourceTopic, Name: "no"}, metadata.ConfigOp{Name: "retention.ms", Value: v("1")}, kerr.UnknownTopicOrPartition, "")
	own := metadata.Resource{Type: metadata.ResourceBroker, Name: "1"}
	f(own, metadata.ConfigOp{Name: "num.partitions", Value: v("3")}, kerr.InvalidRequest, "Cannot update these configs dynamically: [num.partitions]")
	f(own, metadata.ConfigOp{Name: "log.segment.bytes", Value: v("x")}, kerr.InvalidRequest, "")
	f(own, metadata.ConfigOp{Name: "custom.plugin.key", Value: v("x")}, nil, "")
	f(metadata.Resource{Type: metadata.ResourceBroker, Name: "2"}, metadata.ConfigOp{Name: "a", Value: v("x")}, kerr.InvalidRequest,
		"Unexpected broker id, expected 1 or empty string, but received 2")
	group := metadata.Resource{Type: metadata.ResourceGroup, Name: "g"}
	f(group, metadata.ConfigOp{Name: "foo", Value: v("1")}, kerr.InvalidConfig, "Unknown group config name: foo")
	f(group, metadata.ConfigOp{Name: "consumer.session.timeout.ms", Value: v("1000")}, kerr.InvalidConfig,
		"consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms")
	f(group, metadata.ConfigOp{Name: "consumer.session.timeout.ms", Value: v("50000")}, nil, "")
	metrics := metadata.Resource{Type: metadata.ResourceClientMetrics, Name: "m"}
	f(metrics, metadata.ConfigOp{Name: "interval.ms", Value: v("5")}, kerr.InvalidRequest, "Invalid value 5 for interval.ms, interval must be between 100 and 3600000 (1 hour)")
	f(metrics, metadata.ConfigOp{Name: "foo", Value: v("5")}, kerr.InvalidRequest, "Unknown client metrics configuration: foo")
	f(metrics, metadata.ConfigOp{Name: "match", Value: v("client_id=(")}, kerr.InvalidConfig, "Illegal client matching pattern: client_id=(")
	f(metadata.Resource{Type: 3, Name: "m"}, metadata.ConfigOp{Name: "a", Value: v("1")}, kerr.InvalidRequest, "Unexpected resource type 3")
	two := []metadata.ConfigOp{{Name: "retention.ms", Value: v("1000")}, {Name: "retention.ms", Value: v("2000")}}
	if err := s.IncrementalAlterConfigs(t.Context(), topic, two, false); !errors.Is(err, kerr.InvalidRequest) {
		t.Errorf("duplicate: %v", err)
	}
	if e := describe(t, s, own)["custom.plugin.key"]; !e.Sensitive || e.Value != nil || e.Type != 0 {
		t.Errorf("custom key: %+v", e)
	}
}

func TestAppendAndSubtract(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	create(t, s, "t", 1)
	r := metadata.Resource{Type: metadata.ResourceTopic, Name: "t"}
	f := func(op int8, value, want string) {
		t.Helper()
		if err := s.IncrementalAlterConfigs(t.Context(), r, []metadata.ConfigOp{{Name: "cleanup.policy", Op: op, Value: &value}}, false); err != nil {
			t.Fatal(err)
		}
		topic, _ := s.Image().Topic("t")
		if got := topic.Overrides["cleanup.policy"]; got != want {
			t.Errorf("cleanup.policy = %q, want %q", got, want)
		}
	}
	f(2, "compact", "delete,compact") // the default counts as what was there
	f(2, "compact", "delete,compact")
	f(3, "delete", "compact")
	topic, _ := s.Image().Topic("t")
	if !topic.Config.Compact || topic.Config.Delete {
		t.Errorf("%+v", topic.Config)
	}
	// Turning tiering off needs the confirmation that tiered records go.
	off := "false"
	err := s.IncrementalAlterConfigs(t.Context(), r, []metadata.ConfigOp{{Name: "remote.storage.enable", Value: &off}}, false)
	if !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("tiering off: %v", err)
	}
	if err := s.ReplaceConfigs(t.Context(), r, map[string]*string{"segment.ms": &[]string{"5000"}[0]}, false); err != nil {
		t.Fatal(err)
	}
	topic, _ = s.Image().Topic("t")
	if !maps.Equal(topic.Overrides, map[string]string{"segment.ms": "5000"}) {
		t.Errorf("replaced by %v", topic.Overrides)
	}
}
