package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/varvelog/varve/internal/service"
)

// Limits of a connection: an idle or a slow client costs a bounded time and a bounded header (I10).
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
)

// Options configure New.
type Options struct {
	Addr    string                                  // host:port; port 0 takes a free one (see Server.Addr)
	Ready   func() error                            // why the broker cannot serve now, nil when it can; always ready when nil
	Metrics http.Handler                            // the /metrics page; 404 when nil
	Topics  func(name string) (any, error)          // a Topic or ErrNotFound; 404 when nil
	Admin   Admin                                   // the cluster's state and changes
	Listen  func(addr string) (net.Listener, error) // the network seam; TCP when nil
	Logger  *slog.Logger                            // slog.Default() when nil
	// Profiling adds /debug/pprof/. Whoever reaches it can read memory and slow the broker down.
	Profiling bool
}

// Server answers HTTP between Start and Stop, each called once.
type Server struct {
	o    Options
	http *http.Server
	ln   net.Listener
	run  *service.Group
}

// New builds the routes; nothing listens yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.Listen == nil {
		o.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	s := &Server{o: o}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}
	return s
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	if s.o.Metrics != nil {
		mux.Handle("GET /metrics", s.o.Metrics)
	}
	if s.o.Topics != nil {
		mux.HandleFunc("GET /v1/topics/{name}", s.topic)
	}
	s.o.Admin.routes(mux)
	if s.o.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Start listens and serves in the background. An error names the address.
func (s *Server) Start() error {
	ln, err := s.o.Listen(s.o.Addr)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", s.o.Addr, err)
	}
	s.ln = ln
	s.run = service.NewGroup(context.Background())
	s.run.Go(func(context.Context) {
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.o.Logger.Error("HTTP server ended", slog.Any("error", err))
		}
	})
	return nil
}

// Addr is where the server listens, with the port that was taken. Valid after Start.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Stop lets requests in progress end until ctx does, then closes their connections, and waits for the server's goroutine.
func (s *Server) Stop(ctx context.Context) error {
	if s.run == nil { // never started
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.run.Stop()
	return err
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.o.Ready(); err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeText(w, http.StatusOK, "ready")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // the client has gone: nothing to tell it
}
