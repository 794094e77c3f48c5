// Package s3server runs real S3 servers for tests and demos: MinIO and versitygw, as separate processes on a free loopback
// port. install.sh in this folder installs the binaries; a missing one is a failure, never a skipped test.
package s3server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/testutil/ports"
)

const (
	accessKey     = "admin0001"
	secretKey     = "secret00001"
	bucketName    = "varve"
	startAttempts = 3 // another process may take the port between its choice and its use
	startTimeout  = 30 * time.Second
	pollInterval  = 20 * time.Millisecond
	stopTimeout   = 5 * time.Second
)

// Server is a running S3 server.
type Server struct {
	// URL names a bucket on the server, which is created when it is opened; without credentials.
	URL       string
	Endpoint  string // http://127.0.0.1:port
	AccessKey string
	SecretKey string

	process *os.Process
	done    chan struct{} // closed when the process has ended
	ended   error         // how, valid after done
}

// Env returns the environment that gives AWS tools, and varve, the server's credentials.
func (s *Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey}
}

// BucketURL names a bucket, and a prefix in it, on the server; the bucket is created when it is opened.
func (s *Server) BucketURL(bucket, prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s&region=us-east-1&path-style=true&create=true", bucket, prefix, url.QueryEscape(s.Endpoint))
}

// Stop ends the server and waits for it. It may be called more than once.
func (s *Server) Stop() {
	_ = s.process.Signal(os.Interrupt) // it may have ended
	select {
	case <-s.done:
	case <-time.After(stopTimeout):
		_ = s.process.Kill()
		<-s.done
	}
}

// Start launches a server of the kind ("minio" or "versitygw") that stops with the test. The data is in a directory of the test.
func Start(t testing.TB, kind string) *Server {
	t.Helper()
	s, err := Launch(t.Context(), kind, t.TempDir())
	if err != nil {
		t.Fatalf("start %s: %v", kind, err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Launch starts a server of the kind ("minio" or "versitygw") with its data in dir, created where missing, and waits until it answers. The
// context ends only the wait; the caller stops the server. The server also dies with this process.
func Launch(ctx context.Context, kind, dir string) (*Server, error) {
	binary, err := find(kind)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		s, err := launch(ctx, kind, binary, dir)
		if err == nil || attempt == startAttempts || ctx.Err() != nil {
			return s, err
		}
	}
}

func find(kind string) (string, error) {
	if kind != "minio" && kind != "versitygw" {
		return "", fmt.Errorf("unknown s3 server %q, want minio or versitygw", kind)
	}
	tools := os.Getenv("VARVE_TOOLS")
	if tools == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find %s: %w", kind, err)
		}
		tools = filepath.Join(home, ".cache", "varve-tools")
	}
	binary := filepath.Join(tools, kind)
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("find %s: %w; run internal/testutil/s3server/install.sh", kind, err)
	}
	return binary, nil
}

func launch(ctx context.Context, kind, binary, dir string) (*Server, error) {
	addresses, err := ports.Loopback(1)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, kind+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd, err := command(kind, binary, addresses[0], dir)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	endpoint := "http://" + addresses[0]
	s := &Server{Endpoint: endpoint, AccessKey: accessKey, SecretKey: secretKey, done: make(chan struct{})}
	s.URL = s.BucketURL(bucketName, "")
	if err := s.run(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	if err := s.waitReady(ctx); err != nil {
		s.Stop()
		tail, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s at %s: %w; its log ends:\n%s", kind, addresses[0], err, tail[max(0, len(tail)-2000):])
	}
	return s, nil
}

func command(kind, binary, address, dir string) (*exec.Cmd, error) {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	var args []string
	if kind == "minio" {
		args = []string{"server", "--address", address, "--quiet", "--certs-dir", filepath.Join(dir, "certs"), data}
	} else {
		args = []string{"--port", address, "--access", accessKey, "--secret", secretKey, "--quiet", "--keep-alive", "posix", data}
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+accessKey, "MINIO_ROOT_PASSWORD="+secretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off")
	cmd.SysProcAttr = dieWithParent()
	return cmd, nil
}

// run starts the process from a locked thread that lives as long as the process: on Linux the signal that ends a child
// with its parent comes when the thread that started it ends.
func (s *Server) run(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		s.process = cmd.Process
		started <- err
		if err == nil {
			s.ended = cmd.Wait()
			close(s.done)
		}
	}()
	return <-started
}

// waitReady polls until the server answers a request for its buckets with "who are you" rather than "not yet".
func (s *Server) waitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if s.answers(ctx) {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return errors.Join(errors.New("ended"), s.ended)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		}
	}
}

func (s *Server) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusForbidden
}
