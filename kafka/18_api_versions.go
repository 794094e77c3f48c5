package kafka

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions (18), versions 0-4.
//
//   - A version that we do not know is answered with error 35, version 0 of the body and one entry, {18, 0, 4} (KIP-511): the client
//     asks again with what it finds there. No other API is answered outside its range.
//   - The response header has no tagged fields in any version.
//   - v3: the client's software name and version must match a pattern, else 42.
//   - v0-3 must not show supported features whose minimum is 0 (KAFKA-17492); v4 shows them. Finalised features of level 0 are never
//     shown.
//
// What is finalised: metadata.version, so that tools can tell what this cluster is like. group.version and transaction.version
// are 0 until KIP-848 and transactions are served.
func handleApiVersions(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.ApiVersionsRequest)
	resp := kmsg.NewPtrApiVersionsResponse()
	if r.unsupported {
		resp.Version = 0
		resp.ErrorCode = r.code(kerr.UnsupportedVersion)
		own := s.table.find(int16(kmsg.ApiVersions))
		resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{apiKey(own)}
		return resp, nil
	}
	resp.Version = req.Version
	if req.Version >= 3 && !(softwareName.MatchString(req.ClientSoftwareName) && softwareName.MatchString(req.ClientSoftwareVersion)) {
		resp.ErrorCode = r.code(kerr.InvalidRequest)
		return resp, nil
	}
	for i := range s.table.all {
		if s.table.all[i].internal {
			continue
		}
		resp.ApiKeys = append(resp.ApiKeys, apiKey(&s.table.all[i]))
	}
	for _, f := range features {
		if req.Version < 4 && f.min == 0 {
			continue
		}
		sf := kmsg.NewApiVersionsResponseSupportedFeature()
		sf.Name, sf.MinVersion, sf.MaxVersion = f.name, f.min, f.max
		resp.SupportedFeatures = append(resp.SupportedFeatures, sf)
	}
	for _, f := range features {
		if f.level == 0 {
			continue
		}
		ff := kmsg.NewApiVersionsResponseFinalizedFeature()
		ff.Name, ff.MinVersionLevel, ff.MaxVersionLevel = f.name, f.level, f.level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, ff)
	}
	resp.FinalizedFeaturesEpoch = featuresEpoch
	return resp, nil
}

// softwareName is the pattern of KIP-511.
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

// featuresEpoch is the version of the finalised features: clients ignore features whose epoch is negative or did not grow. It
// grows with a release that changes them.
const featuresEpoch = 1

// features are the cluster features that we know. Level 30 of metadata.version is 4.3-IV0, level 7 is 3.3-IV3.
var features = []struct {
	name            string
	min, max, level int16
}{
	{"metadata.version", 7, 30, 30},
}

func apiKey(r *route) kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey = int16(r.key)
	k.MinVersion, k.MaxVersion = r.advertised()
	return k
}
