package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// clusterAnswer is what a broker's HTTP side tells of the cluster (GET /v1/cluster): of it what Kafka's protocol does not tell.
type clusterAnswer struct {
	ClusterID string `json:"clusterId"`
	Brokers   []struct {
		NodeID   int32 `json:"nodeId"`
		NewDisk  bool  `json:"newDisk"`
		Draining bool  `json:"draining"`
		Full     bool  `json:"full"`
	} `json:"brokers"`
	Voters  []voterRow `json:"voters"`
	Problem string     `json:"problem"`
}

// voterRow is a member of the etcd that holds the cluster's metadata; its broker is -1 where it has never started.
type voterRow struct {
	NodeID    int32  `json:"nodeId"`
	Address   string `json:"address"`
	Leader    bool   `json:"leader"`
	Learner   bool   `json:"learner"`
	Healthy   bool   `json:"healthy"`
	DBBytes   int64  `json:"dbBytes"`
	RaftIndex uint64 `json:"raftIndex"`
	RaftTerm  uint64 `json:"raftTerm"`
	Problem   string `json:"problem,omitempty"`
}

// voterAddress is the body of a request that adds a voter.
type voterAddress struct {
	NodeID  int32  `json:"nodeId"`
	Address string `json:"address"`
}

// call sends a request to the broker's HTTP side and decodes the answer; nil bodies and answers are none. An error carries the
// broker's own words.
func (a *app) call(ctx context.Context, method, path string, body, answer any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+a.httpAddr+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w (--http or VARVE_HTTP name the broker's HTTP address)", err)
	}
	defer func() { _ = resp.Body.Close() }()
	d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes))
	if resp.StatusCode != http.StatusOK {
		var refused struct{ Error string }
		if d.Decode(&refused) != nil || refused.Error == "" {
			return fmt.Errorf("%s %s: %s", method, req.URL, resp.Status)
		}
		return fmt.Errorf("%s", refused.Error)
	}
	if answer == nil {
		return nil
	}
	if err := d.Decode(answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, req.URL, err)
	}
	return nil
}

func parseNode(s string) (int32, error) {
	id, err := strconv.ParseInt(s, 10, 32)
	if err != nil || id < 0 {
		return 0, fmt.Errorf("%q is no broker's id", s)
	}
	return int32(id), nil
}
