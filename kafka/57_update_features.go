package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// UpdateFeatures (57), versions 0-2 (KIP-584, KIP-778).
//
// NB: nothing is ever changed. What is finalised follows from the release (see ApiVersions), so the level that a feature has is
// accepted, and any other is 95 with the words of FeatureControlManager: out of the range, or a downgrade, which Kafka refuses
// too. That is what kafka-features asks for after an upgrade of all brokers.
//
//   - One feature that is refused refuses all; the error stands at the top.
//   - v0-1 name each feature that was accepted. The downgrade flag of v0 is not looked at, as in Kafka.
func handleUpdateFeatures(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.UpdateFeaturesRequest)
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	for _, u := range req.FeatureUpdates {
		kind := u.UpgradeType
		if req.Version == 0 {
			kind = upgradeFeature
		}
		if why := s.refuseLevel(u.Feature, u.MaxVersionLevel, kind); why != "" {
			err := refuse(kerr.InvalidUpdateVersion, "The update failed for all features since the following feature had an error: "+why)
			resp.ErrorCode, resp.ErrorMessage, resp.Results = r.code(err), messageOf(err), nil
			return resp, nil
		}
		if req.Version < 2 {
			out := kmsg.NewUpdateFeaturesResponseResult()
			out.Feature, out.ErrorMessage = u.Feature, text("NONE") // Kafka's, letter for letter
			resp.Results = append(resp.Results, out)
		}
	}
	return resp, nil
}

// Upgrade types of KIP-778.
const (
	upgradeFeature  = 1
	safeDowngrade   = 2
	unsafeDowngrade = 3
)

// refuseLevel says why a feature cannot get a level, in Kafka's words; empty where it has that level.
func (s *Server) refuseLevel(name string, level int16, kind int8) string {
	invalid := func(format string, args ...any) string {
		return fmt.Sprintf("Invalid update version %d for feature %s. ", level, name) + fmt.Sprintf(format, args...)
	}
	if kind < upgradeFeature || kind > unsafeDowngrade {
		return invalid("The controller does not support the given upgrade type.")
	}
	if level < 0 {
		return invalid("A feature version cannot be less than 0.")
	}
	for _, f := range features {
		if f.name != name {
			continue
		}
		switch {
		case level < f.min || level > f.max:
			return invalid("Local controller %d only supports versions %d-%d", s.opts.BrokerID, f.min, f.max)
		case level > f.level && kind != upgradeFeature:
			return invalid("Can't downgrade to a newer version.")
		case level > f.level:
			return invalid("This release has it at %d.", f.level) // no feature's level is below its maximum today
		case level < f.level && kind == upgradeFeature:
			return invalid("Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.")
		case level < f.level && kind == safeDowngrade:
			return fmt.Sprintf("Unsupported %s downgrade from %d to %d. Refusing to perform the requested downgrade because it might delete metadata information.", name, f.level, level)
		case level < f.level:
			return fmt.Sprintf("Unsupported %s downgrade from %d to %d. Unsafe metadata downgrade is not supported in this version.", name, f.level, level)
		}
		return ""
	}
	return invalid("Local controller %d does not support this feature.", s.opts.BrokerID)
}
