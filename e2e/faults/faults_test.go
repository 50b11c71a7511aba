package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

const (
	// lookback is how far the origin's store reaches back: further than the
	// history of a topic, and not as far as some clients stay away.
	lookback = 15 * time.Second

	// exitTime is how long Caddy may take to end its streams and go.
	exitTime = 2 * time.Second
)

// Those with long ids are apart, or a few connections would have most of the bytes.
var topics = inBothForms(
	"1", origins.Offsets, "2", origins.Finite, "3", origins.Text, origins.Endless, "4", origins.Oversized, origins.Memory)

func inBothForms(names ...string) (topics []string) {
	for _, name := range names {
		topics = append(topics, "/endpoint/"+name, "/wrapping/"+name)
	}
	return topics
}

// A world is all that takes part.
type world struct {
	t      *testing.T
	began  time.Time
	store  *origins.Numbered
	origin *origin
	proxy  *wire.Proxy
	netns  *namespace
	caddy  *caddy
	crowd  *crowd

	before      footprint // with its sites, and without a client
	longestExit time.Duration

	// A fault that takes longer than planned makes those after it wait.
	busy map[part]*sync.Mutex
}

// TestFaults has a crowd of clients live through a schedule of faults. No client
// may lose an event that the origin still has, get one twice or out of order,
// be told to go for good, or miss anything without being told.
func TestFaults(t *testing.T) {
	decides := *seed
	if decides == 0 {
		decides = uint64(time.Now().UnixNano())
	}
	w := &world{t: t, netns: newNamespace(t), busy: make(map[part]*sync.Mutex)}
	for _, p := range []part{partOrigin, partCaddy, partLink, partClients} {
		w.busy[p] = new(sync.Mutex)
	}
	schedule := plan(rand.New(rand.NewPCG(decides, 1)), *duration, restrict(kinds(w.netns != nil), *only))
	t.Logf("go test -v -timeout 0 -run TestFaults ./faults -duration %s -clients %d -seed %d", *duration, *clients, decides)
	w.build(rand.New(rand.NewPCG(decides, 2)))

	var happening sync.WaitGroup
	ctx := t.Context()
	for i := range schedule {
		f := &schedule[i]
		select {
		case <-time.After(time.Until(w.began.Add(f.at))):
		case <-ctx.Done():
		}
		if t.Failed() {
			break
		}
		happening.Go(func() {
			w.busy[f.kind.part].Lock()
			defer w.busy[f.kind.part].Unlock()
			w.say("%s", f)
			if err := w.happen(f); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		})
	}
	happening.Wait()
	w.say("no more faults")
	w.settle()
	w.judge()
	w.levelOff()
}

// say prints a line with the clock of the schedule.
func (w *world) say(format string, args ...any) {
	w.t.Logf("%7.2fs  %s", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

func (w *world) build(r *rand.Rand) {
	t := w.t
	host := "127.0.0.1"
	if w.netns != nil {
		host = w.netns.addr
	}
	config := originConfig{
		Addr:     fmt.Sprintf("%s:%d", host, freePort(t)),
		Epoch:    time.Now().Add(-10 * time.Second),
		Interval: 100 * time.Millisecond,
		Lookback: lookback,
	}
	// More at once than a history holds, and than the buffers to a client.
	for at := 25 * time.Second; at < *duration; at += 10*time.Second + upTo(r, 30*time.Second) {
		config.Bursts = append(config.Bursts, origins.Burst{At: at, Size: 500 + r.IntN(1500)})
	}
	w.store = config.numbered()
	name := ""
	if w.netns != nil {
		name = w.netns.name
	}
	w.origin = newOrigin(t, config, name)
	proxy, err := wire.NewProxy(config.Addr)
	if err != nil {
		t.Fatal(err)
	}
	w.proxy = proxy
	t.Cleanup(proxy.Close)
	w.caddy = newCaddy(t, config.Addr, proxy.Addr())
	if w.before, err = w.caddy.footprint(); err != nil {
		t.Fatal(err)
	}
	t.Logf("Caddy before the first client: %s", w.before)

	w.began = time.Now()
	w.crowd = newCrowd(t, *clients, w.store,
		fmt.Sprintf("http://127.0.0.1:%d", w.caddy.http), fmt.Sprintf("https://localhost:%d", w.caddy.https), topics)
}

// settle waits until every client has caught up.
func (w *world) settle() {
	target := w.store.Newest(time.Now())
	for !origins.Dispatched(target) {
		target++
	}
	w.crowd.setOut()
	deadline := time.Now().Add(time.Minute)
	for w.crowd.behind(target) > 0 && time.Now().Before(deadline) && len(w.crowd.failed()) == 0 {
		time.Sleep(50 * time.Millisecond)
	}
	w.say("%d of %d clients are behind event %d", w.crowd.behind(target), *clients, target)
	for _, m := range w.crowd.members {
		if m.isBehind(target) {
			w.t.Errorf("%s is behind %d: %s", m.name, target, m.place())
		}
	}
}

// judge says what was found, and stops the crowd.
func (w *world) judge() {
	full, err := w.caddy.footprint()
	if err != nil {
		w.t.Error(err)
	}
	w.say("Caddy with %d clients: %s", *clients, full)
	w.crowd.leave()
	var sum tally
	opened := 0
	for _, m := range w.crowd.members {
		found, wronged, story := m.report()
		sum.add(found)
		opened += m.source.Opened()
		switch {
		case wronged:
			w.t.Errorf("%s: %s", m.name, story)
		case story != "":
			w.t.Logf("%s: %s", m.name, story)
		}
	}
	w.say("%d clients, %d connections: %s", len(w.crowd.members), opened, sum)
	if sum.startOvers == 0 || sum.longIDs == 0 {
		w.t.Errorf("no origin has begun anew, or none had long ids: with %d topics, there are too few clients", len(topics))
	}
	w.say("the longest exit took %s; of the log, lines of warnings: %d, of errors: %d", w.longestExit.Round(time.Millisecond),
		strings.Count(w.caddy.logged(`"level":"warn"`), "\n"), strings.Count(w.caddy.logged(`"level":"error"`), "\n"))
}

// margin is what Caddy may have more than before the first client. Its own
// upkeep comes and goes: storage that is cleaned, an administrator's idle
// connection, a certificate that is looked at.
var margin = footprint{goroutines: 4, files: 4, heap: 16 << 10}

// mostResident is for all that had to be held at the worst of times, in KiB: Go
// gives memory back slowly.
const mostResident = 400 << 10

// levelOff checks that Caddy lets go of everything when all have left.
func (w *world) levelOff() {
	left := time.Now()
	// Topics linger, and connections to the origin stay idle for a while.
	deadline := left.Add(time.Minute)
	allowed := footprint{w.before.goroutines + margin.goroutines, w.before.files + margin.files, mostResident, w.before.heap + margin.heap}
	for {
		after, err := w.caddy.footprint()
		if err != nil {
			w.t.Fatal(err)
		}
		if after.within(allowed) {
			w.say("Caddy %.1f s after all have left: %s", time.Since(left).Seconds(), after)
			return
		}
		if time.Now().After(deadline) {
			w.t.Errorf("Caddy holds on to something: %s; allowed are %s", after, allowed)
			w.caddy.keepStacks(w.t)
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
}

var errSlowExit = errors.New("stopping Caddy: it takes too long to exit")
