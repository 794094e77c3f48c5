package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// report is everything that was measured.
type report struct {
	Partitions     int       `json:"partitions"`
	TieredBytes    int64     `json:"tieredBytes"` // before the cases
	TieredSegments int64     `json:"tieredSegments"`
	Rate           float64   `json:"recordsPerSecond"` // during the cases
	BucketDelayMs  int64     `json:"bucketDelayMs"`
	FillSeconds    float64   `json:"fillSeconds"`
	Arrivals       []arrival `json:"arrivals"`
	LongestMs      float64   `json:"longestProduceMs"` // of a record of the load, from its send to its acknowledgement
	Runs           int       `json:"generatorRuns"`
	Acked          int64     `json:"acknowledged"`
	ReadBack       int64     `json:"readBack"`
	ReadSeconds    float64   `json:"readSeconds"`
	Errors         []string  `json:"errors"`
	Seconds        float64   `json:"seconds"`
}

// arrival is a broker that came with an empty disk. Times are seconds from the start of its process.
type arrival struct {
	Case         string             `json:"case"`
	Broker       int32              `json:"broker"`
	ReadySeconds float64            `json:"readySeconds"`        // /readyz
	LeadsSeconds float64            `json:"leadsSeconds"`        // its first partition
	ShareSeconds float64            `json:"shareSeconds"`        // as many as it should, less what the balance leaves alone
	WholeSeconds float64            `json:"wholeSeconds"`        // and every partition has three replicas in sync
	VoterSeconds float64            `json:"voterSeconds"`        // and the metadata its three voters
	Untiered     int64              `json:"untieredBytesBefore"` // of the broker that had most: what is hot and not in the bucket
	Leads        int                `json:"leads"`
	Holds        int                `json:"holds"`
	Bytes        map[int32]counters `json:"bytes"` // by broker
}

// broken lists the promises that were not kept: no record byte comes from the bucket, for anybody; the newcomer gets from the others what
// is not in the bucket, and what so many records of the load have added since; and it carries its share within a time (0: any).
func (a *arrival) broken(within time.Duration, records float64) (errs []string) {
	for id, c := range a.Bytes {
		if c.Records > 0 {
			errs = append(errs, fmt.Sprintf("%s: broker %d read %d bytes of records from the bucket", a.Case, id, c.Records))
		}
	}
	if got, limit := a.Bytes[a.Broker].Replicated, a.Untiered+int64(records*loadBytes*overhead); got > limit {
		errs = append(errs, fmt.Sprintf("%s: broker %d was sent %d bytes, no more than %d were hot and not in the bucket", a.Case, a.Broker, got, limit))
	}
	if within > 0 && a.ShareSeconds > within.Seconds() {
		errs = append(errs, fmt.Sprintf("%s: broker %d led its share after %.1f s", a.Case, a.Broker, a.ShareSeconds))
	}
	return errs
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%d partitions of 3 replicas, %.2f GB tiered in %d segments, %.0f records/s, bucket %d ms away\n\n",
		r.Partitions, float64(r.TieredBytes)/1e9, r.TieredSegments, r.Rate, r.BucketDelayMs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "case\tbroker\tready s\tleads one s\tits share s\tall in sync s\tvoters s\tleads\tholds\tuntiered before\t")
	for _, a := range r.Arrivals {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t%d\t%d\t\n", a.Case, a.Broker, a.ReadySeconds, a.LeadsSeconds, a.ShareSeconds, a.WholeSeconds, a.VoterSeconds, a.Leads, a.Holds, a.Untiered)
	}
	fmt.Fprintln(t, "\t\t\t\t\t\t\t\t\t\t")
	fmt.Fprintln(t, "bytes\tbroker\treplicated\tlogs started over\tbucket: records\tmanifests\tfooters\tread back\tother\tGETs\t")
	for _, a := range r.Arrivals {
		for _, id := range slices.Sorted(maps.Keys(a.Bytes)) {
			c, name := a.Bytes[id], ""
			if id == a.Broker {
				name = a.Case
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, id, c.Replicated, c.StartedOver, c.Records, c.Manifests, c.Footers, c.ReadBack, c.Other, c.Gets)
		}
	}
	_ = t.Flush() // to a terminal or a buffer
	fmt.Fprintf(w, "\n%d records acknowledged, %d read back in %.0f s; the longest acknowledgement of the load took %.0f ms\n", r.Acked, r.ReadBack, r.ReadSeconds, r.LongestMs)
	for _, e := range r.Errors {
		fmt.Fprintln(w, "  error:", e)
	}
}
