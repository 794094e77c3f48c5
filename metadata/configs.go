package metadata

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// kind is the type of a setting, as Kafka's ConfigType numbers it on the wire.
type kind int8

const (
	kindUnknown  kind = 0
	kindBoolean  kind = 1
	kindString   kind = 2
	kindInt      kind = 3
	kindShort    kind = 4
	kindLong     kind = 5
	kindDouble   kind = 6
	kindList     kind = 7
	kindClass    kind = 8
	kindPassword kind = 9
)

// mode says when a setting can change and whether it is shown.
type mode uint8

const (
	readOnly mode = iota // only at the start
	dynamic              // at any time
	hidden               // only at the start, and not described: Kafka's internal settings
)

// unset is the default of a setting that has none: described as null.
const unset = "\x00"

// setting is one row of a table: everything that is known of one name.
type setting struct {
	name     string
	kind     kind
	def      string // as Kafka writes it, or unset
	rule     rule   // nil: every value of the kind
	mode     mode
	doc      string
	synonyms []string // broker settings whose value stands in, the first that is set
}

// catalog is a table, indexed. The tables are built once per Store.
type catalog struct {
	settings []setting // sorted by name
	index    map[string]int
}

func newCatalog(tables ...[]setting) *catalog {
	c := &catalog{index: map[string]int{}}
	for _, t := range tables {
		c.settings = append(c.settings, t...)
	}
	slices.SortFunc(c.settings, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	for i := range c.settings {
		c.index[c.settings[i].name] = i
	}
	return c
}

func (c *catalog) get(name string) (*setting, bool) {
	i, ok := c.index[name]
	if !ok {
		return nil, false
	}
	return &c.settings[i], true
}

// nearest returns the known name with the smallest edit distance.
func (c *catalog) nearest(name string) string {
	best, bestDistance := "", math.MaxInt
	for i := range c.settings {
		if d := editDistance(name, c.settings[i].name); d < bestDistance {
			best, bestDistance = c.settings[i].name, d
		}
	}
	return best
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// catalogs are all tables.
type catalogs struct {
	topic, broker, quota, group, clientMetrics *catalog
}

func newCatalogs() *catalogs {
	return &catalogs{
		topic:         newCatalog(topicSettings(), varveTopicSettings()),
		broker:        newCatalog(serverSettings(), logSettings(), coordinatorSettings(), securitySettings(), varveTopicDefaults(), varveBrokerSettings()),
		quota:         newCatalog(quotaSettings()),
		group:         newCatalog(groupSettings()),
		clientMetrics: newCatalog(clientMetricsSettings()),
	}
}

// value is a raw value, parsed as its kind says.
type value struct {
	raw  string
	num  float64
	list []string
}

// validate checks a value with Kafka's words (ConfigDef.parseType and the validators). The code is INVALID_CONFIG; some
// callers answer another.
func (s *setting) validate(raw string) *Error {
	v, why := s.parse(raw)
	shown := raw
	if why == "" && s.rule != nil {
		shown, why = s.rule(s.name, v)
		if shown == "" {
			shown = raw
		}
		if s.kind == kindDouble {
			shown = javaDouble(v.num)
		}
	}
	if why == "" {
		return nil
	}
	return refuse(kerr.InvalidConfig, "Invalid value %s for configuration %s: %s", shown, s.name, why)
}

func (s *setting) parse(raw string) (v value, why string) {
	v.raw = strings.TrimSpace(raw)
	var err error
	bits := 0
	switch s.kind {
	case kindBoolean:
		if !strings.EqualFold(v.raw, "true") && !strings.EqualFold(v.raw, "false") {
			return v, "Expected value to be either true or false"
		}
	case kindInt:
		bits = 32
	case kindShort:
		bits = 16
	case kindLong:
		bits = 64
	case kindDouble:
		if v.num, err = strconv.ParseFloat(v.raw, 64); err != nil {
			return v, "Not a number of type DOUBLE"
		}
	case kindList:
		v.list = splitList(v.raw)
	}
	if bits != 0 {
		n, err := strconv.ParseInt(v.raw, 10, bits)
		if err != nil {
			return v, fmt.Sprintf("Not a number of type %s", map[int]string{16: "SHORT", 32: "INT", 64: "LONG"}[bits])
		}
		v.num = float64(n)
	}
	return v, ""
}

// splitList splits at commas and trims, as Kafka does; an empty value is an empty list.
func splitList(raw string) []string {
	if raw = strings.TrimSpace(raw); raw == "" {
		return nil
	}
	parts := strings.Split(raw, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// javaDouble formats as Double.toString does for the usual magnitudes.
func javaDouble(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e7 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
