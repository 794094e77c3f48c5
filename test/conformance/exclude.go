package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// exclusion is a case of a suite that this release does not run, and why. A line goes away on the day its reason does.
type exclusion struct {
	suite, name, reason string
}

// Reasons for leaving cases out.
const (
	needsTransactions = "needs transactions"
	needsKIP848       = "needs KIP-848 groups"
	needsAuthorizer   = "needs an authorizer"
	notOf43           = "fails on Apache Kafka 4.3 too: it expects the version to be 4.1"
)

// excluded lists every case that is left out. docs/conformance.md shows the same table; a test compares them.
func excluded() []exclusion {
	return []exclusion{
		{"kcat", "transaction", needsTransactions},
		{"franz-go", "TestTxnEtl", needsTransactions},
		{"franz-go", "Test848RegexBrokerResolves", needsKIP848}, // skips itself, as do the 848 sub-tests of TestGroupETL and TestGroupSimple
		{"java-tools", "verifiable-consumer-848", needsKIP848},
		{"java-tools", "group-describe-848", needsKIP848},
		{"java-tools", "txn-copier", needsTransactions},
		{"java-tools", "txn-perf", needsTransactions},
		{"java-tools", "txn-list", needsTransactions},
		{"java-tools", "txn-describe", needsTransactions},
		{"java-tools", "describe-producers", needsTransactions},
		{"java-tools", "read-committed", needsTransactions},
		{"java-tools", "old-2.8.2-txn", needsTransactions},
		{"java-tools", "old-3.9.1-txn", needsTransactions},
		{"kafka-python", "test_transactional_producer_messages", needsTransactions},
		{"kafka-python", "test_transactional_producer_offsets", needsTransactions},
		{"kafka-python", "test_create_describe_delete_acls", needsAuthorizer},
		{"kafka-python", "test_kafka_version_infer", notOf43},
		{"librdkafka", "0061_consumer_lag", needsTransactions},
		{"librdkafka", "0137_barrier_batch_consume", needsTransactions},
		{"librdkafka", "0081_admin", needsAuthorizer},
		{"streams-smoke", "exactly_once_v2", needsTransactions},
	}
}

// exclusions are those of one suite. librdkafka's quick set has none of its cases that are left out.
func exclusions(suite string) []exclusion {
	var out []exclusion
	for _, e := range excluded() {
		if e.suite == suite && (suite != "librdkafka" || os.Getenv("QUICKSET") == "") {
			out = append(out, e)
		}
	}
	return out
}

// edit replaces a text of a script. Where new is empty and line is set, the whole line that starts with old goes.
type edit struct {
	suite, old, new string
	line            bool
}

// edits leave the excluded cases out of a copy of each script, so that the others run as they are.
func edits() []edit {
	return []edit{
		{"kcat", "ok transaction ", "", true},
		{"franz-go", `${RUN:+-test.run "$RUN"}`, `${RUN:+-test.run "$RUN"} -test.skip '^TestTxnEtl$'`, false},
		{"java-tools", "ok verifiable-consumer-848 ", "", true},
		{"java-tools", "ok group-describe-848 ", "", true},
		{"java-tools", "copier() {", "", true},
		{"java-tools", "copier 0; ", "", true},
		{"java-tools", "ok txn-", "", true},
		{"java-tools", "ok describe-producers ", "", true},
		{"java-tools", "ok read-committed ", "", true},
		{"java-tools", "  ok old-$v-txn ", "", true},
		{"java-tools", "GroupsCommand $BS --list | grep -q $I-b", "GroupsCommand $BS --list | grep -q $I-a", false}, // $I-b is a KIP-848 group
		{"kafka-python", "--ignore test/integration/test_ssl_integration.py", "--ignore test/integration/test_ssl_integration.py" +
			" --deselect test/integration/test_producer_integration.py::test_transactional_producer_messages" +
			" --deselect test/integration/test_producer_integration.py::test_transactional_producer_offsets" +
			" --deselect test/integration/test_admin_integration.py::test_create_describe_delete_acls" +
			" --deselect test/integration/test_consumer_integration.py::test_kafka_version_infer", false},
		{"librdkafka", "0050,0061,0122,0132,0137;", "0050,0122,0132;", false},
		{"librdkafka", "TESTS_SKIP=0052,", "TESTS_SKIP=0061,0081,0137,0052,", false},
		{"streams-smoke", "for g in at_least_once exactly_once_v2;", "for g in at_least_once;", false},
	}
}

// withoutExcluded writes a copy of a script without the excluded cases into dir and returns its path. An edit that finds nothing
// to do is an error: the script has changed, and its case would run or its neighbour would not.
func withoutExcluded(path, dir string) (string, error) {
	suite := strings.TrimSuffix(filepath.Base(path), ".sh")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	script := string(text)
	for _, e := range edits() {
		if e.suite != suite {
			continue
		}
		was := script
		if e.line {
			script = dropLines(script, e.old)
		} else {
			script = strings.Replace(script, e.old, e.new, 1)
		}
		if script == was {
			return "", fmt.Errorf("leave cases out of %s: it has no %q", path, e.old)
		}
	}
	out := filepath.Join(dir, suite+".sh")
	return out, os.WriteFile(out, []byte(script), 0o644)
}

func dropLines(text, prefix string) string {
	var keep []string
	for _, line := range strings.SplitAfter(text, "\n") {
		if !strings.HasPrefix(line, prefix) {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}
