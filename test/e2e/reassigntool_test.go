package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// throttles lists what is set of replication quotas: of brokers 1 to 3 and of topic t.
func throttles(t *testing.T, cl *kgo.Client) (out []string) {
	t.Helper()
	adm := kadm.NewClient(cl)
	brokers, err := adm.DescribeBrokerConfigs(t.Context(), 1, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	topics, err := adm.DescribeTopicConfigs(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(brokers, topics...) {
		for _, c := range r.Configs {
			if strings.Contains(c.Key, ".replication.throttled.") && c.MaybeValue() != "" {
				out = append(out, r.Name+" "+c.Key+"="+c.MaybeValue())
			}
		}
	}
	slices.Sort(out)
	return out
}

// Kafka's own kafka-reassign-partitions sets a throttle, which holds, and takes it away.
func TestReassignmentTool(t *testing.T) {
	libs := os.Getenv("VARVE_KAFKA_LIBS")
	if libs == "" {
		t.Skip("VARVE_KAFKA_LIBS is not set")
	}
	c := startCluster(t)
	cl := connect(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	createOn(t, cl, untiered, []int32{1, 2})
	produceMoved(t, cl)
	plan := filepath.Join(t.TempDir(), "plan.json")
	if err := os.WriteFile(plan, []byte(`{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,3]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) string {
		t.Helper()
		args = append([]string{"-Xmx256m", "-cp", filepath.Join(libs, "*"), "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
			"--bootstrap-server", c.Bootstrap()[0], "--reassignment-json-file", plan}, args...)
		out, err := exec.CommandContext(t.Context(), "java", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	began := time.Now()
	tool("--execute", "--throttle", fmt.Sprint(throttleRate/4))
	want := []string{
		"1 follower.replication.throttled.rate=500000", "1 leader.replication.throttled.rate=500000",
		"2 follower.replication.throttled.rate=500000", "2 leader.replication.throttled.rate=500000",
		"3 follower.replication.throttled.rate=500000", "3 leader.replication.throttled.rate=500000",
		"t follower.replication.throttled.replicas=0:3", "t leader.replication.throttled.replicas=0:1,0:2",
	}
	if got := throttles(t, cl); !slices.Equal(got, want) {
		t.Errorf("the tool has set\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	tool("--execute", "--additional", "--throttle", fmt.Sprint(throttleRate)) // while it runs
	for !strings.Contains(tool("--verify", "--preserve-throttles"), "Reassignment of partition t-0 is completed.") {
		if t.Context().Err() != nil {
			t.Fatal("not moved")
		}
	}
	if took, least := time.Since(began), time.Duration(float64(movedBytes-unthrottledBytes)/throttleRate*float64(time.Second)); took < least {
		t.Errorf("moved in %v, at %d bytes a second that is %v", took, throttleRate, least)
	}
	if out := tool("--verify"); !strings.Contains(out, "Clearing broker-level throttles") || !strings.Contains(out, "Clearing topic-level throttles") {
		t.Errorf("the last look:\n%s", out)
	}
	if got := throttles(t, cl); len(got) > 0 {
		t.Errorf("the tool has left %v", got)
	}
}
