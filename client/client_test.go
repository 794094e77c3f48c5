package client

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"
)

func TestRecordSurvivesTheTranslation(t *testing.T) {
	f := func(r Record) {
		t.Helper()
		if got := fromKgo(r.toKgo()); !reflect.DeepEqual(got, r) {
			t.Errorf("%+v came back as %+v", r, got)
		}
	}
	f(Record{})
	f(Record{Topic: "t", Key: []byte("k"), Value: []byte("v"), Time: time.UnixMilli(12)})
	f(Record{Topic: "t", Key: []byte{}, Headers: []Header{{"a", []byte("b")}, {"a", nil}}})
}

func TestConsumerNeedsAGroupAndATopic(t *testing.T) {
	for _, o := range []ConsumerOptions{{}, {Group: "g"}, {Topics: []string{"t"}}} {
		if c, err := NewConsumer(o); err == nil {
			c.Close()
			t.Errorf("%+v is accepted", o)
		}
	}
}

// Without a broker nothing is acknowledged, and whoever waits is told.
func TestNobodyListens(t *testing.T) {
	nobody := Options{Brokers: []string{"127.0.0.1:1"}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p, err := NewProducer(ProducerOptions{Options: nobody})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	p.Send(t.Context(), Record{Topic: "t", Value: []byte("v")}, func(_ Record, err error) { told <- err })
	if err := p.Close(ctx); err == nil {
		t.Error("Close says that everything was acknowledged")
	}
	if err := <-told; err == nil {
		t.Error("the record is acknowledged")
	}
	if err := p.SendSync(t.Context(), Record{Topic: "t"}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	c, err := NewConsumer(ConsumerOptions{Options: nobody, Group: "g", Topics: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Poll(ctx, func(context.Context, Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("poll: %v", err)
	}
	c.Close()
	if err := c.Poll(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("poll after Close: %v", err)
	}
}
