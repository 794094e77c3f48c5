package main

import (
	"regexp"
	"slices"
	"strings"
)

// replacements turn what must differ between two clusters into words.
var replacements = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`TopicId: [A-Za-z0-9_-]{22}`), "TopicId: ID"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`"logDir":"[^"]*"`), `"logDir":"PATH"`},
	{regexp.MustCompile(`"size":[1-9][0-9]*`), `"size":SIZE`},
	{regexp.MustCompile(`"(total|usable)Bytes":[0-9]+`), `"${1}Bytes":SIZE`},
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), "ADDRESS"},
	{regexp.MustCompile(`TimeoutException: .*`), "TimeoutException"}, // the text depends on where the time ran out
	{regexp.MustCompile(`[ \t]+`), " "},
}

// normalise answers the lines of an output that may be compared, sorted.
func normalise(output string, words map[string]string) []string {
	for text, word := range words {
		output = strings.ReplaceAll(output, text, word)
	}
	for _, r := range replacements {
		output = r.pattern.ReplaceAllString(output, r.word)
	}
	var lines []string
	for _, l := range strings.Split(output, "\n") {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "SLF4J") {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	return lines
}

// difference answers the lines that only one side has: "- " of Kafka, "+ " of Varve.
func difference(kafka, varve []string) []string {
	var out []string
	for len(kafka) > 0 || len(varve) > 0 {
		switch {
		case len(varve) == 0 || len(kafka) > 0 && kafka[0] < varve[0]:
			out, kafka = append(out, "- "+kafka[0]), kafka[1:]
		case len(kafka) == 0 || varve[0] < kafka[0]:
			out, varve = append(out, "+ "+varve[0]), varve[1:]
		default:
			kafka, varve = kafka[1:], varve[1:]
		}
	}
	return out
}

// explanations are the differences that a document explains.
type explanations struct {
	anywhere map[string]bool
	of       map[string]map[string]bool // by command
}

// explained collects the lines of a document's fenced blocks that are differences. Those below a line that is a command of
// commands.txt belong to that command alone; a line that ends with ... stands for all that begin like it.
func explained(document string) explanations {
	known := explanations{anywhere: map[string]bool{}, of: map[string]map[string]bool{}}
	inside, lines := false, known.anywhere
	for _, l := range strings.Split(document, "\n") {
		switch {
		case strings.HasPrefix(l, "```"):
			inside, lines = !inside, known.anywhere
		case inside && strings.HasPrefix(l, "kafka-"):
			if known.of[l] == nil {
				known.of[l] = map[string]bool{}
			}
			lines = known.of[l]
		case inside && (strings.HasPrefix(l, "- ") || strings.HasPrefix(l, "+ ")):
			lines[l] = true
		}
	}
	return known
}

func (e explanations) have(command, difference string) bool {
	for _, lines := range []map[string]bool{e.anywhere, e.of[command]} {
		if lines[difference] {
			return true
		}
		for l := range lines {
			if prefix, all := strings.CutSuffix(l, "..."); all && strings.HasPrefix(difference, prefix) {
				return true
			}
		}
	}
	return false
}
