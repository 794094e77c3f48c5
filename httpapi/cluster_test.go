package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// send makes a request with a body, of a type, and answers status and text.
func send(t *testing.T, method, url, contentType, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func TestChanges(t *testing.T) {
	var done []string
	var fails error
	note := func(format string, args ...any) error {
		done = append(done, fmt.Sprintf(format, args...))
		return fails
	}
	base := serve(t, Options{Admin: Admin{
		Drain:         func(_ context.Context, id int32, drain bool) error { return note("drain %d %v", id, drain) },
		AddVoter:      func(_ context.Context, v VoterAddress) error { return note("add %d@%s", v.NodeID, v.Address) },
		RemoveVoter:   func(_ context.Context, id int32) error { return note("remove %d", id) },
		RemoveAddress: func(_ context.Context, address string) error { return note("remove at %s", address) },
		ReplaceVoter: func(_ context.Context, old int32, v VoterAddress) error {
			return note("replace %d by %d@%s", old, v.NodeID, v.Address)
		},
		MoveController: func(_ context.Context, to int32) error { return note("controller %d", to) },
	}})
	f := func(request, body string, wantCode int, want string) {
		t.Helper()
		done = nil
		method, path, _ := strings.Cut(request, " ")
		code, text := send(t, method, base+path, "application/json", body)
		if code != wantCode || code == 200 && (text != "{}" || strings.Join(done, ", ") != want) || code != 200 && !strings.Contains(text, want) {
			t.Errorf("%s %s: %d %s, did %v; want %d %s", request, body, code, text, done, wantCode, want)
		}
		if wantCode == 400 && done != nil {
			t.Errorf("%s %s did %v", request, body, done)
		}
	}
	f("PUT /v1/brokers/3/drain", "", 200, "drain 3 true")
	f("DELETE /v1/brokers/3/drain", "", 200, "drain 3 false")
	f("PUT /v1/brokers/x/drain", "", 400, "no broker's id")
	f("PUT /v1/brokers/-1/drain", "", 400, "no broker's id")
	f("POST /v1/voters", `{"nodeId":4,"address":"h:2380"}`, 200, "add 4@h:2380")
	f("POST /v1/voters", `{"nodeId":4,"addr":"h:2380"}`, 400, "addr")
	f("POST /v1/voters", `{"nodeId":4,"address":"`+strings.Repeat("h", maxBodyBytes)+`"}`, 400, "too large")
	f("POST /v1/voters", "", 400, "EOF")
	f("PUT /v1/voters/2", `{"nodeId":4,"address":"h:2380"}`, 200, "replace 2 by 4@h:2380")
	f("PUT /v1/voters/two", `{"nodeId":4,"address":"h:2380"}`, 400, "no broker's id")
	f("DELETE /v1/voters/2", "", 200, "remove 2")
	f("DELETE /v1/voters?address=h:2380", "", 200, "remove at h:2380")
	f("DELETE /v1/voters?address=2", "", 400, "address=HOST:PORT")
	f("DELETE /v1/voters", "", 400, "address=HOST:PORT")
	f("PUT /v1/controller", `{"nodeId":2}`, 200, "controller 2")
	for err, code := range map[error]int{
		fmt.Errorf("broker 3: %w", ErrNotFound):                  404,
		fmt.Errorf("%w: broker 2 is the only voter", ErrRefused): 409,
		fmt.Errorf("members: %w", context.DeadlineExceeded):      504,
		errors.New("disk"): 500,
	} {
		fails = err
		f("DELETE /v1/voters/2", "", code, err.Error())
	}
	// What a browser sends from a page of another site without asking first.
	fails, done = nil, nil
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
		if code, _ := send(t, "POST", base+"/v1/voters", contentType, `{"nodeId":4,"address":"h:2380"}`); code != 415 || done != nil {
			t.Errorf("type %q: %d, did %v", contentType, code, done)
		}
	}
}

func TestCluster(t *testing.T) {
	want := Cluster{ClusterID: "c", Controller: 2, Brokers: []Broker{{NodeID: 2, Host: "h", Port: 1, Fenced: true}}, Voters: []Voter{{NodeID: 2, Healthy: true}}}
	base := serve(t, Options{Admin: Admin{Cluster: func(context.Context) (Cluster, error) { return want, nil }}})
	code, body := get(t, base+"/v1/cluster")
	var got Cluster
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d %s: %v", code, body, err)
	}
	for _, request := range []string{"POST /v1/voters", "DELETE /v1/voters/1", "PUT /v1/controller", "PUT /v1/brokers/1/drain"} {
		method, path, _ := strings.Cut(request, " ")
		if code, _ := send(t, method, base+path, "application/json", "{}"); code != 404 && code != 405 {
			t.Errorf("%s without a function: %d", request, code)
		}
	}
}
