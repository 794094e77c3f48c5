package metadata

// ResourceType is Kafka's config resource type.
type ResourceType int8

const (
	ResourceTopic         ResourceType = 2
	ResourceBroker        ResourceType = 4
	ResourceBrokerLogger  ResourceType = 8
	ResourceClientMetrics ResourceType = 16
	ResourceGroup         ResourceType = 32
)

// Resource names what a configuration belongs to. A broker resource with an empty name is the cluster default.
type Resource struct {
	Type ResourceType
	Name string
}

// ConfigOp is one entry of IncrementalAlterConfigs (KIP-339): Op 0 set, 1 delete, 2 append, 3 subtract.
type ConfigOp struct {
	Name  string
	Op    int8
	Value *string
}

// ConfigEntry is one entry of DescribeConfigs.
type ConfigEntry struct {
	Name          string
	Value         *string
	Source        int8 // Kafka's ConfigSource
	Type          int8 // Kafka's ConfigType
	ReadOnly      bool
	Sensitive     bool
	Documentation string
	Synonyms      []ConfigSynonym
}

// ConfigSynonym is where a value could come from, in order of precedence.
type ConfigSynonym struct {
	Name   string
	Value  *string
	Source int8
}
