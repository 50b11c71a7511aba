package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

const (
	// lease is how long a node of the fleet may be silent.
	lease = 3 * time.Second

	// fleetLookback is how far the origin's store reaches back: further than the stream may get
	// nothing, and not as far as the stream. Faults of the origin and of NATS that followed on
	// each other have kept events from the stream for 22 s.
	fleetLookback = 40 * time.Second

	// reunion is how long nodes may take to be with the fleet again.
	reunion = 40 * time.Second
)

var fleetTopics = []string{"/fleet/1", "/fleet/2", "/fleet/3", "/wrapping/1", "/fleet/" + origins.Offsets, "/fleet/" + origins.Text}

// A fleet is all that takes part in the test of one.
type fleet struct {
	stage
	brokers    []*broker
	nodes      []*node
	storehouse storehouse
	plain      string // URL of the balancer

	mu sync.Mutex

	// Guarded by mu.
	excuses []timespan // when a topic may have several connections to the origin
	deleted time.Time  // when the stream was
}

// TestFleet has a crowd behind a balancer live through faults of three nodes, three NATS
// servers and the origin. No client may lose an event, get one twice or out of order. The
// origin has one connection of each topic: two for as long as a lease, and more only while a
// holder is stopped or NATS is away.
func TestFleet(t *testing.T) {
	decides := seeded()
	f := &fleet{stage: stage{t: t}}
	schedule := deal(rand.New(rand.NewPCG(decides, 1)), *duration, restrict(fleetKinds(part(*except)), *only))
	t.Logf("go test -v -timeout 0 -run TestFleet ./faults -duration %s -clients %d -seed %d", *duration, *clients, decides)
	f.build(rand.New(rand.NewPCG(decides, 2)))
	f.live(schedule, f.happen)
	f.settle()
	f.excused(f.unite)
	f.keepsHistory()
	f.settle()
	f.haveOneHolder()
	f.judge()
	f.countUpstreams()
	f.say("the longest exit took %s", f.longestExit.Round(time.Millisecond))
	for _, n := range f.nodes {
		f.levelOff(n.caddy, n.before)
	}
	f.leavesNoConsumers()
}

func (f *fleet) build(r *rand.Rand) {
	t := f.t
	config := originConfig{
		Addr:     fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		Epoch:    time.Now().Add(-10 * time.Second),
		Interval: 100 * time.Millisecond,
		Lookback: fleetLookback,
		Journal:  filepath.Join(t.TempDir(), "journal"),
	}
	// More at once than what may be on the way into the stream.
	for at := 25 * time.Second; at < *duration; at += 10*time.Second + upTo(r, 30*time.Second) {
		config.Bursts = append(config.Bursts, origins.Burst{At: at, Size: 200 + r.IntN(800)})
	}
	f.store = config.numbered()
	f.brokers = newBrokers(t)
	f.storehouse = newStorehouse(t, f.brokers)
	f.origin = newOrigin(t, config, "")
	for i := range 3 {
		n := newNode(t, fmt.Sprintf("node%d", i+1), config.Addr, f.brokers)
		f.nodes = append(f.nodes, n)
		var err error
		if n.before, err = n.footprint(); err != nil {
			t.Fatal(err)
		}
	}
	var secure string
	f.plain, secure = newBalancer(t, f.nodes)
	f.gather(f.plain, secure, fleetTopics)
}

// excused lets something happen during which a topic may have several connections to the
// origin, and for a lease behind it.
func (f *fleet) excused(do func() error) {
	from := time.Now()
	if err := do(); err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.excuses = append(f.excuses, timespan{from, time.Now().Add(lease)})
}

// unite waits until no node is apart. One that does not answer is dead, or stopped, and one
// that has just lost NATS does not know yet.
func (f *fleet) unite() error {
	last(lease)
	began := time.Now()
	for {
		apart := ""
		for _, n := range f.nodes {
			all, _ := n.shares()
			for _, s := range all {
				if s.Role == "apart" {
					apart = fmt.Sprintf("%s is apart with %s: %s", n.title, s.Name, s.Error)
				}
			}
		}
		if apart == "" {
			return nil
		}
		if time.Since(began) > reunion {
			return fmt.Errorf("waiting for the nodes to be with the fleet: after %s, %s", reunion, apart)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

var errNoHolder = errors.New("no node holds the lease")

// find returns a node that is the holder of a topic, or is not.
func (f *fleet) find(r *rand.Rand, topic string, holder bool) (found *node, err error) {
	for began := time.Now(); time.Since(began) < reunion; time.Sleep(100 * time.Millisecond) {
		for _, i := range r.Perm(len(f.nodes)) {
			switch role := f.nodes[i].role(topic); {
			case role == "holder" && holder, role == "follower" && !holder:
				return f.nodes[i], nil
			}
		}
	}
	return nil, fmt.Errorf("looking for a node of %s: %w", topic, errNoHolder)
}

// haveOneHolder checks that the nodes agree on who asks the origin.
func (f *fleet) haveOneHolder() {
	for _, topic := range fleetTopics {
		eventually(f.t, reunion, func() error {
			holders := 0
			var seen []string
			for _, n := range f.nodes {
				all, err := n.shares()
				if err != nil {
					return err
				}
				for _, s := range all {
					if !s.isOf(topic) {
						continue
					}
					seen = append(seen, fmt.Sprintf("%s is %s, and the holder is %s", n.title, s.Role, s.Holder))
					if s.Role == "holder" {
						holders++
					}
				}
			}
			if holders != 1 {
				return fmt.Errorf("%s has %d holders: %s", topic, holders, strings.Join(seen, "; "))
			}
			return nil
		})
	}
}

// keepsHistory restarts all nodes at once. What the stream has, and the origin has no longer,
// must come to one who asks for it then.
func (f *fleet) keepsHistory() {
	f.mu.Lock()
	since := f.deleted
	f.mu.Unlock()
	if since.IsZero() {
		since = f.began
	}
	back := fleetLookback + 3*time.Second
	time.Sleep(time.Until(since.Add(back + 10*time.Second))) // which servers take to choose leaders
	from := f.store.Newest(time.Now().Add(-back))
	f.say("all nodes are restarted at once, and a client comes back from event %d, of %s ago", from, back)
	if err := f.restart(f.nodes...); err != nil {
		f.t.Error(err)
	}
	topic := fleetTopics[0]
	m := &checker{store: f.store, topic: topic, started: true, last: from}
	s := eventsource.Source{
		URL: f.plain + topic, Client: newClient(new(wire.Line), false),
		LastID: origins.ID(topic, from), OnEvent: m.event, OnPosition: m.position,
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	target := f.store.Newest(time.Now())
	for !origins.Dispatched(target) {
		target++
	}
	eventually(f.t, 20*time.Second, func() error {
		if m.isBehind(target) {
			return fmt.Errorf("waiting for event %d: %s", target, m.place())
		}
		return nil
	})
	cancel()
	running.Wait()
	found, wronged, story := m.report()
	if wronged || found.gaps+found.falseAlarms > 0 {
		f.t.Errorf("after a restart of all nodes, who comes back does not get the history: %s", story)
	}
	f.say("it has got %s", found)
}

// countUpstreams checks what the origin has noted of its streams.
func (f *fleet) countUpstreams() {
	journal, err := os.ReadFile(f.origin.config.Journal)
	if err != nil {
		f.t.Fatal(err)
	}
	all, err := overlaps(journal, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	wrong, longest := unexcused(all, f.excuses, lease)
	for _, o := range wrong {
		f.t.Errorf("at %.2fs, %s", o.from.Sub(f.began).Seconds(), o)
	}
	life := timespan{f.began, time.Now()}
	var strict time.Duration
	for _, part := range life.without(f.excuses) {
		strict += part.length()
	}
	f.say("the origin had several connections of a topic %d times, the longest without an excuse for %s; there was no excuse for %s of %s",
		len(all), longest.Round(time.Millisecond), strict.Round(time.Second), life.length().Round(time.Second))
}

// leavesNoConsumers checks that the stream has no consumers when nobody reads it. The server
// drops those of nodes that were killed.
func (f *fleet) leavesNoConsumers() {
	eventually(f.t, 90*time.Second, func() error {
		n, err := f.storehouse.consumers(f.t.Context())
		if err == nil && n > 0 {
			err = fmt.Errorf("the stream has %d consumers, and nobody reads", n)
		}
		return err
	})
	f.say("the stream has no consumers")
}
