package jetstream

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// newLease returns a lease of a node on a topic.
func newLease(n *node, topic string) *lease {
	return &lease{bucket: n.fleet.store.leases, key: topic, owner: n.name, duration: testLease, now: n.clock.now}
}

func TestALeaseHasOneHolder(t *testing.T) {
	t.Parallel()
	s, o, ctx := startServer(t), newOrigin(), t.Context()
	a := newLease(newNode(t, s, o, "a", options{}), "topic")
	b := newLease(newNode(t, s, o, "b", options{}), "topic")
	first, err := a.acquire(ctx)
	if err != nil || !a.holds() {
		t.Fatalf("acquiring a free lease: %v, held %t", err, a.holds())
	}
	if _, err := b.acquire(ctx); !errors.Is(err, errTaken) || b.holds() {
		t.Errorf("acquiring a lease that is held: %v, held %t", err, b.holds())
	}
	second, err := a.renew(ctx)
	if err != nil || second <= first {
		t.Errorf("renewing revision %d: %d, %v", first, second, err)
	}
	if err := a.release(ctx); err != nil || a.holds() {
		t.Errorf("releasing: %v, held %t", err, a.holds())
	}
	third, err := b.acquire(ctx)
	if err != nil || third <= second {
		t.Errorf("acquiring a lease that was given up at revision %d: %d, %v", second, third, err)
	}
	if _, err := a.renew(ctx); !errors.Is(err, errTaken) {
		t.Errorf("renewing a lease that was given up: %v", err)
	}
}

func TestALeaseWhoseHolderIsSilentIsFree(t *testing.T) {
	t.Parallel()
	s, o, ctx := startServer(t), newOrigin(), t.Context()
	a := newLease(newNode(t, s, o, "a", options{}), "topic")
	b := newLease(newNode(t, s, o, "b", options{}), "topic")
	if _, err := a.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other node gets the lease", func() bool {
		_, err := b.acquire(ctx)
		if err == nil && a.holds() {
			t.Error("two nodes hold the lease")
		}
		return err == nil
	})
	if _, err := a.renew(ctx); !errors.Is(err, errTaken) {
		t.Errorf("renewing a lease that is over: %v", err)
	}
}

// A deaf bucket does what it is told, and its answers are lost.
type deaf struct{ jetstream.KeyValue }

var errLost = errors.New("the answer is lost")

func (d deaf) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	_, _ = d.KeyValue.Create(ctx, key, value, opts...)
	return 0, errLost
}

func (d deaf) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	_, _ = d.KeyValue.Update(ctx, key, value, revision)
	return 0, errLost
}

func TestALeaseSurvivesLostAnswers(t *testing.T) {
	t.Parallel()
	s, o, ctx := startServer(t), newOrigin(), t.Context()
	a := newLease(newNode(t, s, o, "a", options{}), "topic")
	sound := a.bucket
	lost := func(ctx context.Context) (jetstream.KeyValue, error) {
		bucket, err := sound(ctx)
		return deaf{bucket}, err
	}
	a.bucket = lost
	if _, err := a.acquire(ctx); !errors.Is(err, errLost) || a.holds() {
		t.Errorf("acquiring without an answer: %v, held %t", err, a.holds())
	}
	a.bucket = sound
	if _, err := a.acquire(ctx); err != nil || !a.holds() {
		t.Errorf("acquiring what the first attempt has got: %v, held %t", err, a.holds())
	}
	before := a.deadline()
	a.bucket = lost
	if _, err := a.renew(ctx); !errors.Is(err, errLost) || a.deadline() != before {
		t.Errorf("renewing without an answer: %v, and the deadline has moved by %s", err, a.deadline().Sub(before))
	}
	a.bucket = sound
	if _, err := a.renew(ctx); err != nil || !a.deadline().After(before) {
		t.Errorf("renewing after that: %v", err)
	}
}

// A node that exits in the middle of a request gives up what it has got by that.
func TestALeaseIsGivenUpAfterALostAnswer(t *testing.T) {
	t.Parallel()
	s, o, ctx := startServer(t), newOrigin(), t.Context()
	for name, request := range map[string]func(l *lease) error{
		"acquired": func(l *lease) error { _, err := l.acquire(ctx); return err },
		"renewed":  func(l *lease) error { _, err := l.renew(ctx); return err },
	} {
		a := newLease(newNode(t, s, o, name, options{}), name)
		sound := a.bucket
		if name == "renewed" {
			if _, err := a.acquire(ctx); err != nil {
				t.Fatal(err)
			}
		}
		a.bucket = func(ctx context.Context) (jetstream.KeyValue, error) {
			bucket, err := sound(ctx)
			return deaf{bucket}, err
		}
		if err := request(a); !errors.Is(err, errLost) {
			t.Fatalf("%s: %v", name, err)
		}
		a.bucket = sound
		if err := a.release(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if b := newLease(newNode(t, s, o, name+" next", options{}), name); !isFree(ctx, b) {
			t.Errorf("%s: the lease is not free", name)
		}
	}
}

func isFree(ctx context.Context, l *lease) bool {
	_, err := l.acquire(ctx)
	return err == nil
}

// TestTheHoldersDeadlineCountsFromTheRequest has a renewal that takes half a lease.
func TestTheHoldersDeadlineCountsFromTheRequest(t *testing.T) {
	t.Parallel()
	s, o, ctx := startServer(t), newOrigin(), t.Context()
	a := newLease(newNode(t, s, o, "a", options{}), "topic")
	at := time.Now()
	a.now = func() time.Time { return at }
	sound := a.bucket
	a.bucket = func(ctx context.Context) (jetstream.KeyValue, error) {
		bucket, err := sound(ctx)
		return slow{bucket, func() { at = at.Add(testLease / 2) }}, err
	}
	began := at
	if _, err := a.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	if end := a.deadline(); !end.Before(began.Add(testLease)) {
		t.Errorf("the lease ends %s after the request was sent, and lasts for %s", end.Sub(began), testLease)
	}
	at = a.deadline()
	if a.holds() {
		t.Error("the lease is held at its end")
	}
}

// A slow bucket takes its time.
type slow struct {
	jetstream.KeyValue
	passes func()
}

func (s slow) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	defer s.passes()
	return s.KeyValue.Create(ctx, key, value, opts...)
}
