package metadata

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rule checks a parsed value. why is empty where the value is allowed; shown is what the message quotes as the value, where
// that is not the whole value.
type rule func(name string, v value) (shown, why string)

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func atLeast(low float64) rule {
	return func(_ string, v value) (string, string) {
		if v.num < low {
			return "", "Value must be at least " + number(low)
		}
		return "", ""
	}
}

func between(low, high float64) rule {
	return func(_ string, v value) (string, string) {
		switch {
		case v.num < low:
			return "", "Value must be at least " + number(low)
		case v.num > high:
			return "", "Value must be no more than " + number(high)
		}
		return "", ""
	}
}

// betweenOr is the rule of compression.gzip.level, which has one special value outside its range.
func betweenOr(low, high, special float64) rule {
	return func(_ string, v value) (string, string) {
		if v.num == special || v.num >= low && v.num <= high {
			return "", ""
		}
		return "", fmt.Sprintf("Value must be between %s and %s or equal to %s", number(low), number(high), number(special))
	}
}

func oneOf(allowed ...string) rule {
	return func(_ string, v value) (string, string) {
		if slices.Contains(allowed, v.raw) {
			return "", ""
		}
		return "", "String must be one of: " + strings.Join(allowed, ", ")
	}
}

func oneOfFold(allowed ...string) rule {
	return func(_ string, v value) (string, string) {
		if slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, v.raw) }) {
			return "", ""
		}
		return "", "String must be one of (case insensitive): " + strings.Join(allowed, ", ")
	}
}

// eachOf is ConfigDef.ValidList: the message quotes the first element that is not allowed.
func eachOf(allowed ...string) rule {
	return func(_ string, v value) (string, string) {
		for _, element := range v.list {
			if !slices.Contains(allowed, element) {
				return element, "String must be one of: " + strings.Join(allowed, ", ")
			}
		}
		return "", ""
	}
}

func notEmpty(_ string, v value) (string, string) {
	if v.raw == "" {
		return "", "String must be non-empty"
	}
	return "", ""
}

// throttledReplicas is the rule of leader.replication.throttled.replicas and its twin: *, or partition:broker pairs.
func throttledReplicas(name string, v value) (string, string) {
	if len(v.list) == 1 && v.list[0] == "*" {
		return "", ""
	}
	for _, element := range v.list {
		p, b, ok := strings.Cut(element, ":")
		if !ok || !digits(p) || !digits(b) {
			shown := "[" + strings.Join(v.list, ", ") + "]"
			return shown, name + " must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
		}
	}
	return "", ""
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// offsetReset is the rule of share.auto.offset.reset (KIP-932).
func offsetReset(_ string, v value) (string, string) {
	switch {
	case v.raw == "latest", v.raw == "earliest", strings.HasPrefix(v.raw, "by_duration:P"):
		return "", ""
	}
	return "", "Invalid value " + v.raw + ". The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'"
}

// pushInterval is the rule of a client metrics subscription's interval.ms (KIP-714).
func pushInterval(name string, v value) (string, string) {
	if v.num < 100 || v.num > 3_600_000 {
		return "", fmt.Sprintf("Invalid value %s for %s, interval must be between 100 and 3600000 (1 hour)", number(v.num), name)
	}
	return "", ""
}

// clientMatch is the rule of a client metrics subscription's match (KIP-714): key=regular expression.
func clientMatch(_ string, v value) (string, string) {
	keys := []string{"client_instance_id", "client_id", "client_software_name", "client_software_version", "client_source_address", "client_source_port"}
	for _, element := range v.list {
		key, pattern, ok := strings.Cut(element, "=")
		_, err := regexp.Compile(pattern)
		if !ok || err != nil || !slices.Contains(keys, strings.TrimSpace(key)) {
			return "", "Illegal client matching pattern: " + element
		}
	}
	return "", ""
}
