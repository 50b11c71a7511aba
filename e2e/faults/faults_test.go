package faults

import (
	"fmt"
	"math/rand/v2"
	"strings"
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
	stage
	proxy  *wire.Proxy
	netns  *namespace
	caddy  *caddy
	before footprint // with its sites, and without a client
}

// TestFaults has a crowd of clients live through a schedule of faults. No client
// may lose an event that the origin still has, get one twice or out of order,
// be told to go for good, or miss anything without being told.
func TestFaults(t *testing.T) {
	decides := seeded()
	w := &world{stage: stage{t: t}, netns: newNamespace(t)}
	schedule := plan(rand.New(rand.NewPCG(decides, 1)), *duration, restrict(kinds(w.netns != nil), *only))
	t.Logf("go test -v -timeout 0 -run TestFaults ./faults -duration %s -clients %d -seed %d", *duration, *clients, decides)
	w.build(rand.New(rand.NewPCG(decides, 2)))
	w.live(schedule, w.happen)
	w.settle()
	full, err := w.caddy.footprint()
	if err != nil {
		t.Error(err)
	}
	w.say("Caddy with %d clients: %s", *clients, full)
	if sum := w.judge(); sum.startOvers == 0 || sum.longIDs == 0 {
		t.Errorf("no origin has begun anew, or none had long ids: with %d topics, there are too few clients", len(topics))
	}
	w.say("the longest exit took %s; of the log, lines of warnings: %d, of errors: %d", w.longestExit.Round(time.Millisecond),
		strings.Count(w.caddy.logged(`"level":"warn"`), "\n"), strings.Count(w.caddy.logged(`"level":"error"`), "\n"))
	w.levelOff(w.caddy, w.before)
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

	w.gather(fmt.Sprintf("http://127.0.0.1:%d", w.caddy.http), fmt.Sprintf("https://localhost:%d", w.caddy.https), topics)
}
