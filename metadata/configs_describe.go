package metadata

import (
	"maps"
	"slices"
	"strings"
)

// unusedDoc is the documentation of a setting that only compatibility keeps in the tables.
const unusedDoc = "Accepted for compatibility with Apache Kafka; Varve does not use it."

// DescribeConfigs lists the entries of a resource (names nil: all), sorted by name.
func (s *Store) DescribeConfigs(r Resource, names []string) ([]ConfigEntry, error) {
	image := s.Image()
	if err := image.checkResource(r, false); err != nil {
		return nil, err
	}
	entries := image.describe(r)
	if names != nil {
		entries = slices.DeleteFunc(entries, func(e ConfigEntry) bool { return !slices.Contains(names, e.Name) })
	}
	return entries, nil
}

func (i *Image) describe(r Resource) []ConfigEntry {
	set := i.Overrides(r)
	switch r.Type {
	case ResourceTopic:
		return i.broker.values.describeTable(i.local.topic, set, sourceTopic)
	case ResourceGroup:
		return i.broker.values.describeTable(i.local.group, set, sourceGroup)
	case ResourceClientMetrics:
		return i.broker.values.describeTable(i.local.clientMetrics, set, sourceClientMetrics)
	case ResourceBroker:
		if r.Name == "" {
			return i.broker.values.describeClusterDefault()
		}
		return i.broker.values.describeBroker()
	default:
		return []ConfigEntry{{Name: "root", Value: ptr("INFO"), Source: 6, Type: int8(kindString)}}
	}
}

func ptr(s string) *string { return &s }

func (s *setting) entry() ConfigEntry {
	e := ConfigEntry{Name: s.name, Source: sourceDefault, Type: int8(s.kind), ReadOnly: s.mode != dynamic, Documentation: s.doc}
	e.Sensitive = s.kind == kindPassword
	if s.doc == "" {
		e.Documentation = unusedDoc
	}
	return e
}

// addSynonym lists where a value comes from; a sensitive value is never shown.
func (e *ConfigEntry) addSynonym(name, value string, source int8) {
	syn := ConfigSynonym{Name: name, Source: source}
	if !e.Sensitive {
		syn.Value = ptr(value)
	}
	e.Synonyms = append(e.Synonyms, syn)
}

// describeTable describes a resource whose settings inherit from the broker's: as ConfigHelper of Kafka does, the override,
// then what synonymsOf says of the broker setting. The source of the value is that of the first.
func (b *brokerValues) describeTable(c *catalog, set map[string]string, source int8) []ConfigEntry {
	entries := make([]ConfigEntry, 0, len(c.settings))
	for n := range c.settings {
		s := &c.settings[n]
		e := s.entry()
		v, overridden := set[s.name]
		if overridden {
			e.addSynonym(s.name, v, source)
		} else {
			v = b.inherited(s)
		}
		if len(s.synonyms) > 0 {
			for _, from := range b.synonymsOf(s.synonyms[0]) {
				e.addSynonym(from.name, from.value, from.source)
			}
		}
		if len(e.Synonyms) > 0 {
			e.Source = e.Synonyms[0].Source
		}
		e.Value = &v
		entries = append(entries, e)
	}
	return entries
}

// describeBroker lists every setting of this broker, and what is set without being known.
func (b *brokerValues) describeBroker() []ConfigEntry {
	var entries []ConfigEntry
	for n := range b.local.broker.settings {
		if s := &b.local.broker.settings[n]; s.mode != hidden {
			entries = append(entries, b.describeOne(s))
		}
	}
	for _, values := range []map[string]string{b.own, b.cluster} {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if _, known := b.local.broker.get(name); !known && !slices.ContainsFunc(entries, func(e ConfigEntry) bool { return e.Name == name }) {
				entries = append(entries, b.describeOne(b.local.custom(name)))
			}
		}
	}
	slices.SortFunc(entries, func(a, b ConfigEntry) int { return strings.Compare(a.Name, b.Name) })
	return entries
}

// custom is a setting that is described only where it is set. One that no table has is of unknown kind, and might be a secret.
func (c *catalogs) custom(name string) *setting {
	if s, ok := c.quota.get(name); ok {
		return s
	}
	return &setting{name: name, kind: kindUnknown, def: unset, mode: dynamic}
}

func (b *brokerValues) describeOne(s *setting) ConfigEntry {
	e := s.entry()
	e.Sensitive = e.Sensitive || s.kind == kindUnknown
	for _, from := range b.synonymsOf(s.name) {
		e.addSynonym(from.name, from.value, from.source)
	}
	if len(e.Synonyms) > 0 {
		e.Source, e.Value = e.Synonyms[0].Source, e.Synonyms[0].Value
	}
	return e
}

// synonymsOf lists where a broker setting and those that stand in for it (log.retention.minutes for log.retention.ms) have
// values, defaults last. What comes before the first value of the setting itself is left out, as ConfigHelper.configSynonyms
// of Kafka does: where only log.retention.hours is set, log.retention.ms and retention.ms have no synonyms.
func (b *brokerValues) synonymsOf(name string) []sourced {
	family := b.local.family(name)
	all := b.sources(family...)
	for _, member := range family {
		if d, ok := b.local.broker.get(member); ok && d.def != unset {
			all = append(all, sourced{d.name, d.def, sourceDefault})
		}
	}
	first := slices.IndexFunc(all, func(from sourced) bool { return from.name == name })
	if first < 0 {
		return nil
	}
	return all[first:]
}

// family lists a broker setting with those that stand in for it, in order of precedence.
func (c *catalogs) family(name string) []string {
	for n := range c.topic.settings {
		if members := c.topic.settings[n].synonyms; slices.Contains(members, name) {
			return members
		}
	}
	return []string{name}
}

// describeClusterDefault lists what is set for all brokers.
func (b *brokerValues) describeClusterDefault() []ConfigEntry {
	var entries []ConfigEntry
	for _, name := range slices.Sorted(maps.Keys(b.cluster)) {
		s, ok := b.local.broker.get(name)
		if !ok {
			s = b.local.custom(name)
		}
		e := s.entry()
		e.Sensitive = e.Sensitive || s.kind == kindUnknown
		e.addSynonym(name, b.cluster[name], sourceClusterDefault)
		e.Source, e.Value = sourceClusterDefault, e.Synonyms[0].Value
		entries = append(entries, e)
	}
	return entries
}
