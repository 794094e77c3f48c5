//go:build !linux

// Package netns makes networks of Linux namespaces; here there are none, and Available says so.
package netns

import (
	"context"
	"errors"
	"net"
	"time"
)

var errNone = errors.New("network namespaces need Linux")

// Net is never made here.
type Net struct{}

// Link is what a slow way is like.
type Link struct {
	Delay          time.Duration
	BytesPerSecond int
	Loss           float64
	Seed           uint64
}

// Slowed is never made here.
type Slowed struct{}

// Close is never called here, nor is any other method.
func (*Slowed) Close() error { return errNone }

// Available says that there are none.
func Available() error { return errNone }

// SlowAvailable says that there are none.
func SlowAvailable(context.Context) error { return errNone }

// New fails.
func New(int) (*Net, error) { return nil, errNone }

func (*Net) Nodes() int                             { return 0 }
func (*Net) Addr(int) string                        { return "" }
func (*Net) Exec(int) []string                      { return nil }
func (*Net) Cut(_, _ int) error                     { return errNone }
func (*Net) Heal(_, _ int) error                    { return errNone }
func (*Net) HealAll() error                         { return errNone }
func (*Net) Close() error                           { return errNone }
func (*Net) Slow(_, _ int, _ Link) (*Slowed, error) { return nil, errNone }

func (*Net) Dial(context.Context, int, string, string) (net.Conn, error) { return nil, errNone }

func (*Net) Listen(context.Context, int, string, string) (net.Listener, error) { return nil, errNone }
