package jetstream

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A counted bucket counts requests.
type counted struct {
	jetstream.KeyValue
	requests atomic.Int64
}

func (c *counted) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	c.requests.Add(1)
	return c.KeyValue.Get(ctx, key)
}

func (c *counted) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	c.requests.Add(1)
	return c.KeyValue.Create(ctx, key, value, opts...)
}

// countRequests makes a node count its requests for leases.
func (n *node) countRequests() *counted {
	n.t.Helper()
	bucket, err := n.fleet.store.leases(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	c := &counted{KeyValue: bucket}
	n.fleet.store.mu.Lock()
	defer n.fleet.store.mu.Unlock()
	n.fleet.store.bucket = c
	return c
}

// A node need not ask for the lease of a silent topic while its holder says that it has it. When
// the holder says nothing any more, it asks, and takes the lease when it is over.
func TestAHolderVouchesForItsLeases(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a := newNode(t, s, o, "a", options{})
	newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	b := newNode(t, s, o, "b", options{})
	c := newClient(b, "")
	eventually(t, "b is connected", b.isConnected)
	o.send(1)
	c.await("1")
	vouched := func() time.Time {
		contest := b.source().contest
		contest.mu.Lock()
		defer contest.mu.Unlock()
		return contest.vouched
	}
	first := vouched()
	eventually(t, "the holder vouches", func() bool { return vouched().After(first) })
	requests := b.countRequests()
	for range 6 {
		last := vouched()
		eventually(t, "the holder vouches again", func() bool { return vouched().After(last) })
	}
	if n := requests.requests.Load(); n > 0 {
		t.Errorf("in two leases, %d requests were made for a lease that its holder vouches for", n)
	}
	a.kill()
	eventually(t, "b holds the lease", func() bool { return holder(b) != nil })
	eventually(t, "b asks the origin", func() bool { return len(o.askers()) == 1 })
	o.send(2)
	c.await("3").sequence(1, 3)
}

// A holder that was not able to renew its lease for a while vouches for nothing.
func TestAStaleLeaseIsNotVouchedFor(t *testing.T) {
	l := &lease{revision: 7, duration: 10 * time.Second, now: time.Now}
	for left, want := range map[time.Duration]bool{9 * time.Second: true, 6 * time.Second: true, 4 * time.Second: false, -time.Second: false} {
		l.until = time.Now().Add(left)
		if got := l.isFresh(); got != want {
			t.Errorf("with %s left, it is vouched for: %t", left, got)
		}
	}
	l.until, l.revision = time.Now().Add(time.Minute), 0
	if l.isFresh() {
		t.Error("a lease that is not held is vouched for")
	}
}

// That the holder reaches JetStream does not say that this node does.
func TestAVouchedLeaseDoesNotHideTrouble(t *testing.T) {
	t.Parallel()
	var trouble error
	c := newCandidate(&lease{duration: time.Hour, now: time.Now}, func() error { return trouble }, func() {}, func() {})
	c.taken = true
	c.vouch()
	c.turn(t.Context())
	if c.look().away {
		t.Error("the node is apart, and nothing is wrong")
	}
	trouble = errNotConnected
	c.vouch()
	c.turn(t.Context())
	if !c.look().away {
		t.Error("the node is not apart, though it cannot read the stream")
	}
}
