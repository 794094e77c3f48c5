package s3

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/varvelog/varve/internal/testutil/ports"
	"github.com/varvelog/varve/internal/testutil/s3server"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/objtest"
)

// openAt opens the bucket "varve" at the endpoint, created where it is missing.
func openAt(t *testing.T, endpoint string, change func(*Options)) *Bucket {
	t.Helper()
	o := Options{
		Bucket: "varve", Endpoint: strings.TrimPrefix(endpoint, "http://"), Insecure: true, PathStyle: true, Create: true,
		AccessKey: "admin0001", SecretKey: "secret00001",
	}
	if change != nil {
		change(&o)
	}
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.(*Bucket)
}

// proxyTo stands between the client and a real server. after may change the reply, or answer an
// error, upon which the connection breaks.
func proxyTo(t *testing.T, endpoint string, after func(*http.Response) error) string {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Director:       func(r *http.Request) { r.URL.Scheme, r.URL.Host = target.Scheme, target.Host }, // Host is signed: it stays
		ModifyResponse: after,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	return s.URL
}

// TestOverTLS runs the acceptance test with the signing that TLS brings: the body is not signed, the checksum header is
// what protects it. The certificate comes from AWS_CA_BUNDLE.
func TestOverTLS(t *testing.T) {
	server := s3server.Start(t, "minio")
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var unsigned atomic.Int64
	proxy := &httputil.ReverseProxy{Director: func(r *http.Request) {
		r.URL.Scheme, r.URL.Host = target.Scheme, target.Host
		if r.Method == http.MethodPut && r.Header.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" && r.Header.Get("X-Amz-Checksum-Crc32c") != "" {
			unsigned.Add(1)
		}
	}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	front := httptest.NewTLSServer(proxy)
	t.Cleanup(front.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	if err := os.WriteFile(bundle, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	n := 0
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		n++
		o, err := ParseURL(fmt.Sprintf("s3://varve/tls/%d?endpoint=%s&create=true", n, front.URL))
		if err != nil {
			t.Fatal(err)
		}
		o.AccessKey, o.SecretKey = server.AccessKey, server.SecretKey
		b, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	if unsigned.Load() < 1000 {
		t.Errorf("%d puts unsigned with a checksum", unsigned.Load())
	}
}

// fake answers every request with the handler, except the probe of the bucket.
func fake(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0 {
			return
		}
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestLostReplyOfPut(t *testing.T) {
	server := s3server.Start(t, "minio")
	var puts atomic.Int64
	lose := func(r *http.Response) error {
		if r.Request.Method == http.MethodPut && strings.Contains(r.Request.URL.Path, "/seg/") && puts.Add(1) == 1 {
			return errors.New("lost")
		}
		return nil
	}
	b := openAt(t, proxyTo(t, server.Endpoint, lose), nil)
	data := objtest.Pattern(1, 100_000)
	info, err := b.Put(t.Context(), "seg/1", objstore.BodyOf(data))
	if err != nil || info.Size != 100_000 || info.CRC32C != objstore.Checksum(data) {
		t.Errorf("put whose reply was lost: %+v, %v", info, err)
	}
	if n := puts.Load(); n != 2 {
		t.Errorf("%d puts reached the store, want 2", n)
	}
	if got, err := b.Get(t.Context(), "seg/1", 0, -1); !bytes.Equal(got, data) {
		t.Errorf("get: %v", err)
	}
}

func TestPutIsVerified(t *testing.T) {
	server := s3server.Start(t, "minio")
	var heads atomic.Int64
	strip := func(r *http.Response) error {
		if r.Request.Method == http.MethodPut {
			r.Header.Del("X-Amz-Checksum-Crc32c")
		}
		if r.Request.Method == http.MethodHead && strings.Contains(r.Request.URL.Path, "/seg/") {
			heads.Add(1)
			if strings.HasSuffix(r.Request.URL.Path, "/other") {
				r.Header.Set("X-Amz-Checksum-Crc32c", encodeChecksum(12345))
			}
		}
		return nil
	}
	b := openAt(t, proxyTo(t, server.Endpoint, strip), nil)
	if _, err := b.Put(t.Context(), "seg/1", objstore.BodyOf([]byte("x"))); err != nil || heads.Load() != 1 {
		t.Errorf("put without a checksum in the reply: %v, %d heads, want 1", err, heads.Load())
	}
	if _, err := b.Put(t.Context(), "seg/other", objstore.BodyOf([]byte("x"))); !errors.Is(err, objstore.ErrChecksum) {
		t.Errorf("put that the store holds otherwise: %v", err)
	}
}

func TestDamagedReplies(t *testing.T) {
	server := s3server.Start(t, "minio")
	data := objtest.Pattern(1, 100_000)
	var damage atomic.Pointer[func(r *http.Response)]
	b := openAt(t, proxyTo(t, server.Endpoint, func(r *http.Response) error {
		if d := damage.Load(); d != nil && r.Request.Method == http.MethodGet {
			(*d)(r)
		}
		return nil
	}), func(o *Options) { o.Attempts = 1 })
	if _, err := b.Put(t.Context(), "k", objstore.BodyOf(data)); err != nil {
		t.Fatal(err)
	}
	f := func(name string, off, length int64, want objstore.Class, d func(r *http.Response)) {
		t.Helper()
		damage.Store(&d)
		got, err := b.Get(t.Context(), "k", off, length)
		if objstore.Classify(err) != want || got != nil {
			t.Errorf("%s: %d bytes, %v, want class %s", name, len(got), err, want)
		}
	}
	f("flipped bit", 0, -1, objstore.ClassCorrupt, func(r *http.Response) {
		body, _ := io.ReadAll(r.Body)
		body[500] ^= 1
		r.Body = io.NopCloser(bytes.NewReader(body))
	})
	f("cut body", 0, 50_000, objstore.ClassTransient, func(r *http.Response) {
		r.Body = io.NopCloser(io.LimitReader(r.Body, 1000))
	})
	f("shorter range", 10, 1000, objstore.ClassTransient, func(r *http.Response) {
		r.Header.Set("Content-Length", "900")
		r.Body = io.NopCloser(io.LimitReader(r.Body, 900))
	})
	f("other range", 10, 1000, objstore.ClassTransient, func(r *http.Response) {
		r.Header.Set("Content-Range", "bytes 0-999/100000")
	})
	f("range ignored", 10, 1000, objstore.ClassTransient, func(r *http.Response) {
		r.StatusCode = http.StatusOK
		r.Header.Del("Content-Range")
	})
}

func TestStalledBodyEnds(t *testing.T) {
	release := make(chan struct{})
	endpoint := fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT")
		w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		<-release
	})
	t.Cleanup(func() { close(release) })
	b := openAt(t, endpoint, nil)
	b.opts.BaseTimeout = 50 * time.Millisecond
	if _, err := b.Get(t.Context(), "k", 0, 100_000); objstore.Classify(err) != objstore.ClassTimeout {
		t.Errorf("get: %v", err)
	}
}

func TestErrorClasses(t *testing.T) {
	for _, x := range []struct {
		status int
		code   string
		want   objstore.Class
	}{
		{503, "SlowDown", objstore.ClassThrottled}, {429, "TooManyRequests", objstore.ClassThrottled}, {503, "", objstore.ClassThrottled},
		{403, "AccessDenied", objstore.ClassDenied}, {401, "", objstore.ClassDenied}, {500, "InternalError", objstore.ClassTransient},
		{404, "NoSuchKey", objstore.ClassNotFound}, {404, "NoSuchBucket", objstore.ClassTransient}, {416, "InvalidRange", objstore.ClassInvalid},
		{400, "BadDigest", objstore.ClassCorrupt}, {409, "ConditionalRequestConflict", objstore.ClassTransient}, {502, "", objstore.ClassTransient},
	} {
		endpoint := fake(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(x.status)
			if x.code != "" {
				io.WriteString(w, "<Error><Code>"+x.code+"</Code><Message>m</Message></Error>")
			}
		})
		b := openAt(t, endpoint, func(o *Options) { o.Attempts = 1 })
		if _, err := b.Get(t.Context(), "k", 0, 10); objstore.Classify(err) != x.want {
			t.Errorf("%d %s: %v is %s, want %s", x.status, x.code, err, objstore.Classify(err), x.want)
		}
	}
}

func TestWrongCredentials(t *testing.T) {
	for _, kind := range []string{"minio", "versitygw"} {
		b := openAt(t, s3server.Start(t, kind).Endpoint, func(o *Options) { o.SecretKey = "wrong00000" })
		if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); !errors.Is(err, objstore.ErrDenied) {
			t.Errorf("%s: put: %v", kind, err)
		}
	}
}

func TestCredentialsOfTheEnvironment(t *testing.T) {
	server := s3server.Start(t, "minio")
	for _, pair := range server.Env() {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	b := openAt(t, server.Endpoint, func(o *Options) { o.AccessKey, o.SecretKey = "", "" })
	if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err != nil {
		t.Error(err)
	}
}

func TestOpenMissingBucket(t *testing.T) {
	for _, kind := range []string{"minio", "versitygw"} {
		server := s3server.Start(t, kind)
		o, err := ParseURL(strings.Replace(server.URL, "create=true", "create=false", 1))
		if err != nil {
			t.Fatal(err)
		}
		o.AccessKey, o.SecretKey = server.AccessKey, server.SecretKey
		if _, err := Open(t.Context(), o); !errors.Is(err, errNoBucket) || !strings.Contains(err.Error(), "create=true") {
			t.Errorf("%s: open of a missing bucket: %v", kind, err)
		}
	}
}

// TestServerComesUpLater opens a bucket while nothing listens; the first Put that finds the server creates the bucket.
func TestServerComesUpLater(t *testing.T) {
	free, err := ports.Loopback(1)
	if err != nil {
		t.Fatal(err)
	}
	b := openAt(t, free[0], func(o *Options) { o.Attempts = 1 })
	if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); objstore.Classify(err) != objstore.ClassTransient {
		t.Errorf("put while the server is down: %v", err)
	}
	up := openAt(t, s3server.Start(t, "minio").Endpoint, nil)
	up.opts.Bucket = "not-yet-created"
	if _, err := up.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); !errors.Is(err, errNoBucket) || !objstore.Classify(err).Retryable() {
		t.Errorf("put into a missing bucket: %v", err)
	}
	if _, err := up.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err != nil {
		t.Errorf("put again: %v", err)
	}
}

func TestAbortUploads(t *testing.T) {
	for _, kind := range []string{"minio", "versitygw"} {
		t.Run(kind, func(t *testing.T) {
			b := openAt(t, s3server.Start(t, kind).Endpoint, nil)
			for _, key := range []string{"p/1", "p/2", "q/1"} {
				if _, err := b.core.NewMultipartUpload(t.Context(), "varve", key, minio.PutObjectOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			f := func(prefix string, before time.Time, want int) {
				t.Helper()
				if n, err := b.AbortUploads(t.Context(), prefix, before); err != nil || n != want {
					t.Errorf("abort below %q: %d, %v, want %d", prefix, n, err, want)
				}
			}
			f("p/1", time.Now().Add(-time.Hour), 0)
			f("p/1", time.Now().Add(time.Hour), 1)
			f("p/1", time.Now().Add(time.Hour), 0)
			f("p/", time.Now().Add(time.Hour), 1)
			f("", time.Now().Add(time.Hour), 1)
		})
	}
}

func TestDeleteReportsFailures(t *testing.T) {
	endpoint := fake(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>`)
	})
	b := openAt(t, endpoint, nil)
	if err := b.Delete(context.Background(), "a", "b"); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("delete: %v", err)
	}
}

func TestParseURL(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "eu-north-1")
	f := func(raw string, want Options) {
		t.Helper()
		got, err := ParseURL(raw)
		if err != nil || got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", raw, got, err, want)
		}
	}
	f("s3://bkt", Options{Bucket: "bkt", Region: "eu-north-1"})
	f("s3://bkt/p/q/?endpoint=http://127.0.0.1:9000&region=us-east-1&path-style=true",
		Options{Bucket: "bkt", Prefix: "p/q", Endpoint: "127.0.0.1:9000", Insecure: true, Region: "us-east-1", PathStyle: true})
	f("s3://bkt?endpoint=https://s3.local&path-style=false&create=true&profile=x",
		Options{Bucket: "bkt", Endpoint: "s3.local", Region: "eu-north-1", Create: true, Profile: "x"})
	for _, bad := range []string{"http://bkt", "s3://b", "s3://Upper", "s3:///p", "s3://k:s@bkt/p", "s3://bkt?unknown=1", "s3://bkt?endpoint=127.0.0.1:9000", "s3://bkt?create=perhaps", "s3://bkt/p//q", "s3://bkt?endpoint=http://h/path"} {
		if o, err := ParseURL(bad); err == nil {
			t.Errorf("%s: no error, %+v", bad, o)
		}
	}
}
