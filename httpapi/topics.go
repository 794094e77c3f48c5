package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
)

// ErrNotFound is what the functions of Options return for a topic, broker or voter that does not exist: a 404.
var ErrNotFound = errors.New("not found")

// Topic is the answer of GET /v1/topics/NAME.
type Topic struct {
	Name       string      `json:"name"`
	TopicID    string      `json:"topicId"`
	Partitions []Partition `json:"partitions"`
}

// Partition says where one partition's records are. The field names are those of `varve topic describe --output json`
// (contract). Offsets: a start is the first offset held, an end is exclusive; -1 is unknown. This broker answers for the
// partitions that it leads; of the others it knows what the metadata says, and the offsets are -1.
type Partition struct {
	Partition        int32   `json:"partition"`
	Leader           int32   `json:"leader"`
	LeaderEpoch      int32   `json:"leaderEpoch"`
	Replicas         []int32 `json:"replicas"`
	ISR              []int32 `json:"isr"`
	LogStartOffset   int64   `json:"logStartOffset"`
	HotStartOffset   int64   `json:"hotStartOffset"`
	TieredEndOffset  int64   `json:"tieredEndOffset"`
	LastStableOffset int64   `json:"lastStableOffset"`
	HighWatermark    int64   `json:"highWatermark"`
	HotBytes         int64   `json:"hotBytes"`
	TieredBytes      int64   `json:"tieredBytes"`
	TieredObjects    int64   `json:"tieredObjects"`
}

func (s *Server) topic(w http.ResponseWriter, r *http.Request) {
	topic, err := s.o.Topics(r.PathValue("name"))
	answer(w, topic, err)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client has gone: nothing to tell it
}
