package kafka

import (
	"context"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/metadata"
)

// DescribeConfigs (32), versions 1-4.
//
//   - A broker's configs are described by that broker only: another id is 42. An empty id is the cluster default.
//   - Null names mean all. v1 synonyms where asked for; v3 types and documentation.
func handleDescribeConfigs(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DescribeConfigsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for i := range req.Resources {
		q := &req.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = q.ResourceType, q.ResourceName
		out.Configs = []kmsg.DescribeConfigsResponseResourceConfig{}
		res := metadata.Resource{Type: metadata.ResourceType(q.ResourceType), Name: q.ResourceName}
		err := s.wrongBroker(res, true)
		var entries []metadata.ConfigEntry
		if err == nil {
			entries, err = s.deps.meta.DescribeConfigs(res, q.ConfigNames)
		}
		out.ErrorCode, out.ErrorMessage = r.code(err), messageOf(err)
		if err == nil {
			for _, e := range entries {
				out.Configs = append(out.Configs, describeConfig(&e, req))
			}
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

func describeConfig(e *metadata.ConfigEntry, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.IsSensitive = e.Name, e.Value, e.ReadOnly, e.Sensitive
	c.Source, c.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Type)
	if e.Sensitive {
		c.Value = nil
	}
	if req.IncludeSynonyms {
		for _, y := range e.Synonyms {
			cs := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			cs.Name, cs.Value, cs.Source = y.Name, y.Value, kmsg.ConfigSource(y.Source)
			if e.Sensitive {
				cs.Value = nil
			}
			c.ConfigSynonyms = append(c.ConfigSynonyms, cs)
		}
	}
	if req.IncludeDocumentation && e.Documentation != "" {
		c.Documentation = text(e.Documentation)
	}
	return c
}

// wrongBroker refuses a broker resource that is not this broker's.
func (s *Server) wrongBroker(res metadata.Resource, describe bool) error {
	if res.Type != metadata.ResourceBroker && res.Type != metadata.ResourceBrokerLogger {
		return nil
	}
	own := itoa(int32(s.opts.BrokerID))
	if res.Name == own || (res.Name == "" && res.Type == metadata.ResourceBroker) {
		return nil
	}
	if _, err := strconv.ParseInt(res.Name, 10, 32); err != nil {
		return refuse(kerr.InvalidRequest, "Broker id must be an integer, but it is: "+res.Name)
	}
	if describe && res.Type == metadata.ResourceBroker {
		return refuse(kerr.InvalidRequest, "Unexpected broker id, expected "+own+" or empty string, but received "+res.Name)
	}
	return refuse(kerr.InvalidRequest, "Unexpected broker id, expected "+own+", but received "+res.Name)
}

func itoa(v int32) string { return strconv.FormatInt(int64(v), 10) }
