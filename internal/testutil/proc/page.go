package proc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/varvelog/varve/httpapi"
)

// Get reads a page of the broker's HTTP listener.
func (n *Node) Get(ctx context.Context, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTP+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of broker %d: %s", path, n.ID, resp.Status)
	}
	return read(resp.Body)
}

// Topic asks the broker where a topic's bytes are.
func (n *Node) Topic(ctx context.Context, name string) (t httpapi.Topic, err error) {
	err = n.Get(ctx, "/v1/topics/"+name, func(body io.Reader) error { return json.NewDecoder(body).Decode(&t) })
	return t, err
}

// Metrics asks the broker for what it has counted since the start of its process.
func (n *Node) Metrics(ctx context.Context) (m Metrics, err error) {
	err = n.Get(ctx, "/metrics", func(body io.Reader) error {
		m, err = ParseMetrics(body)
		return err
	})
	return m, err
}

// Metrics are the values of series, each by its name and labels as they are written.
type Metrics map[string]float64

// ParseMetrics reads a page in Prometheus' text format.
func ParseMetrics(page io.Reader) (Metrics, error) {
	m := Metrics{}
	in := bufio.NewScanner(page)
	for in.Scan() {
		if strings.HasPrefix(in.Text(), "#") {
			continue
		}
		cut := strings.LastIndexByte(in.Text(), ' ') + 1
		v, err := strconv.ParseFloat(in.Text()[cut:], 64)
		if err != nil {
			return nil, fmt.Errorf("metric %q: %w", in.Text(), err)
		}
		m[strings.TrimSpace(in.Text()[:cut])] = v
	}
	return m, in.Err()
}

// Sum is that of all series of a name that have a label, as it is written; "" stands in all of them.
func (m Metrics) Sum(name, label string) (sum float64) {
	for series, v := range m {
		if of, labels, _ := strings.Cut(series, "{"); of == name && strings.Contains(labels, label) {
			sum += v
		}
	}
	return sum
}
