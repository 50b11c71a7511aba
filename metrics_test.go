package ssefanout

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// gather returns the metrics as a registry of Caddy's would: by name and labels,
// with the count of a histogram under its name.
func gather(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := observe.Register(registry, process{}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			name := family.GetName()
			for _, label := range m.Label {
				name += fmt.Sprintf("{%s=%q}", label.GetName(), label.GetValue())
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// expectChange checks which metrics have changed since before, and by how much.
// Whether a delivery is sampled depends on the tests before.
func expectChange(t *testing.T, before map[string]float64, want map[string]float64) {
	t.Helper()
	got := make(map[string]float64)
	for name, value := range gather(t) {
		if change := value - before[name]; change != 0 && name != "caddy_sse_fanout_delivery_seconds" {
			got[strings.TrimPrefix(name, "caddy_sse_fanout_")] = change
		}
	}
	for name := range maps.Keys(want) {
		if _, ok := got[name]; !ok {
			got[name] = 0
		}
	}
	for name, value := range got {
		if value != want[name] {
			t.Errorf("%s has changed by %v, want %v", name, value, want[name])
		}
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxEventSize: settings.SmallestEventSize})
		before := gather(t)
		waiting := s.get("/events")
		expectChange(t, before, map[string]float64{
			"subscribers": 1, "subscribers_waiting": 1, "topics": 1, "topics_waiting": 1,
		})
		up := s.origin.next().accept().events(1, 3)
		known := s.get("/events", "Last-Event-ID", "2")
		s.get("/events", "Last-Event-ID", "long "+strings.Repeat("x", relay.MaxLastEventID))
		expectChange(t, before, map[string]float64{
			"subscribers": 3, "topics": 1, "upstream_connections": 1,
			"history_events": 3, "history_bytes": float64(len(numbered(1, 3))),
			"events_received_total": 3, "events_delivered_total": 4,
			"bytes_delivered_total":                       float64(len(numbered(1, 3)) + len(numbered(3, 3))),
			`subscribers_joined_total{outcome="fresh"}`:   1,
			`subscribers_joined_total{outcome="resumed"}`: 1,
			`subscribers_joined_total{outcome="gap"}`:     1,
			"ignored_ids_total":                           1, "gaps_total": 1,
		})

		// An id from before the history, and one that the origin does not know either.
		before = gather(t)
		s.get("/events", "Last-Event-ID", "0")
		again := s.origin.next().accept()
		expectChange(t, before, map[string]float64{"subscribers": 1, "upstream_connections": 1, "catchups_total": 1})
		again.events(1, 1)
		expectChange(t, before, map[string]float64{
			"subscribers": 1, "catchups_total": 1, `subscribers_joined_total{outcome="resumed"}`: 1,
			"events_delivered_total": 3, "bytes_delivered_total": float64(len(numbered(1, 3))),
		})
		before = gather(t)
		lost := s.get("/events", "Last-Event-ID", "z")
		s.origin.denyCatchup(chokes["404"])
		expectChange(t, before, map[string]float64{
			"subscribers": 1, "catchups_total": 1, "gaps_total": 1, `subscribers_joined_total{outcome="gap"}`: 1,
		})

		before = gather(t)
		time.Sleep(settings.DefaultHeartbeat)
		synctest.Wait()
		expectChange(t, before, map[string]float64{"heartbeats_total": 5})

		before = gather(t)
		up.send("data: " + strings.Repeat("x", 2000))
		expectChange(t, before, map[string]float64{
			"oversized_events_total": 1, "upstream_reconnects_total": 1,
			"subscribers_waiting": 5, "topics_waiting": 1, "upstream_connections": -1,
		})

		before = gather(t)
		for _, c := range []*client{waiting, known, lost} {
			c.leave()
		}
		expectChange(t, before, map[string]float64{
			"subscribers": -3, "subscribers_waiting": -3, `subscribers_ended_total{reason="client_gone"}`: 3,
		})
		before = gather(t)
		up2 := s.serve(httptest.NewRequest(http.MethodPost, "/events", nil))
		s.origin.next().answer(200).end()
		up2.expectStatus(200)
		expectChange(t, before, map[string]float64{`passed_through_total{reason="method"}`: 1})
	})
}

// What a topic holds is given back with it, and what was counted stays.
func TestMetricsWhenEverythingIsOver(t *testing.T) {
	var before map[string]float64
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		before = gather(t)
		up, _ := s.joinLive(1, 3)
		s.get("/other")
		up.events(4, 4)
	})
	expectChange(t, before, map[string]float64{
		"events_received_total": 4, "events_delivered_total": 4,
		"bytes_delivered_total":                     float64(len(numbered(1, 4))),
		`subscribers_joined_total{outcome="fresh"}`: 1,
		// The other client was waiting yet.
		`subscribers_ended_total{reason="client_gone"}`: 1,
	})
}

// Pools count together, those that are over too, and each event once.
func TestCountersOutliveTheirPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newSetup(t, Options{})
		before := gather(t)
		up, _ := old.joinLive(1, 3)
		expectReceived := func(n float64) {
			t.Helper()
			synctest.Wait()
			if got := gather(t)["caddy_sse_fanout_events_received_total"] - before["caddy_sse_fanout_events_received_total"]; got != n {
				t.Errorf("%v events are counted, want %v", got, n)
			}
		}
		expectReceived(3)
		old.lineageName += " changed"
		changed := old.reload(Options{History: History{Events: 10}}, newOrigin(t))
		if changed.pool == old.pool {
			t.Fatal("the changed handler has the pool of the old one")
		}
		other, _ := changed.joinLive(1, 2)
		expectReceived(5)
		up.events(4, 4)
		expectReceived(6)
		old.cleanup()
		time.Sleep(time.Hour) // the drain is over
		synctest.Wait()
		if alive.has(old.pool) {
			t.Fatal("the old pool is not over")
		}
		expectReceived(6)
		old.pool.stats.Received.Add(1) // late
		other.events(3, 3)
		expectReceived(8)
	})
}

// Each reason is exported, from the start.
func TestEveryReasonHasItsSeries(t *testing.T) {
	constants := map[string][]string{}
	note := func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		kind, isIdent := spec.Type.(*ast.Ident)
		value, isText := spec.Values[0].(*ast.BasicLit)
		if isIdent && isText {
			text, _ := strconv.Unquote(value.Value)
			constants[kind.Name] = append(constants[kind.Name], text)
		}
		return true
	}
	for _, dir := range []string{"internal/pass", "internal/relay", "internal/relay/quota"} {
		//lint:ignore SA1019 build tags do not matter
		packages, err := parser.ParseDir(token.NewFileSet(), dir, nil, parser.SkipObjectResolution) //nolint:staticcheck // as above
		if err != nil {
			t.Fatal(err)
		}
		for _, files := range packages {
			ast.Inspect(files, note)
		}
	}
	metrics := gather(t)
	for kind, format := range map[string]string{
		"EndReason": "caddy_sse_fanout_subscribers_ended_total{reason=%q}",
		"Rejection": "caddy_sse_fanout_rejected_total{reason=%q}",
		"Limit":     "caddy_sse_fanout_rejected_total{reason=%q}",
		"Reason":    "caddy_sse_fanout_passed_through_total{reason=%q}",
	} {
		if len(constants[kind]) < 3 {
			t.Errorf("found the constants %v of type %s", constants[kind], kind)
		}
		for _, reason := range constants[kind] {
			if _, ok := metrics[fmt.Sprintf(format, reason)]; !ok {
				t.Errorf("there is no series for the %s %s", kind, reason)
			}
		}
	}
}

// Several handlers meet in the registry of one configuration.
func TestMetricsAreRegisteredOnceInARegistry(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for range 3 {
		if err := observe.Register(registry, process{}); err != nil {
			t.Fatal(err)
		}
	}
	taken := prometheus.NewPedanticRegistry()
	taken.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "caddy_sse_fanout_topics", Help: "Something else."}))
	err := observe.Register(taken, process{})
	if err == nil || !strings.HasPrefix(err.Error(), "registering metrics: ") {
		t.Errorf("got error %v, want one that says what could not be done", err)
	}
}

// Of what a subscriber gets, one batch in deliverySample is measured, but not
// what it has asked to be sent again.
func TestDeliveryIsSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{FirstEvent: "oldest"})
		up, _ := s.joinLive(1, 100)
		time.Sleep(time.Minute + time.Second) // not the moment of a heartbeat
		before := gather(t)
		late := s.get("/events")
		late.expect(primer("") + numbered(1, 100))
		expectChange(t, before, map[string]float64{
			"subscribers": 1, "events_delivered_total": 100, "bytes_delivered_total": float64(len(numbered(1, 100))),
			`subscribers_joined_total{outcome="fresh"}`: 1,
		})
		before = gather(t)
		for i := range 10 * relay.DeliverySample {
			up.events(i, i)
		}
		if got := gather(t)["caddy_sse_fanout_delivery_seconds"] - before["caddy_sse_fanout_delivery_seconds"]; got != 20 {
			t.Errorf("%v batches were measured, want 20", got)
		}
	})
}

func TestDeliveryIsMeasuredFromDecodingToWriting(t *testing.T) {
	sum := func() float64 {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(observe.DeliverySeconds)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return families[0].Metric[0].GetHistogram().GetSampleSum()
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next().accept()
		time.Sleep(time.Second)
		c.mu.Lock()
		c.slowness = 2 * time.Second
		c.mu.Unlock()
		before := sum()
		for i := range relay.DeliverySample {
			up.events(i, i)
			time.Sleep(10 * time.Second)
		}
		if got := sum() - before; got != 2 {
			t.Errorf("one delivery took %v seconds, want 2", got)
		}
	})
}

// scrape reads the metrics that a Caddy exports, and checks that none is there
// twice.
func (s *liveSite) scrape() map[string]float64 {
	s.t.Helper()
	var resp *http.Response
	waitFor(s.t, "an answer to a scrape", func() (ok bool) {
		var err error
		resp, err = s.client.Get(s.url + "/metrics")
		return err == nil // a reload may take the connection away
	})
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Errorf("scraping: status %d, error %v, %s", resp.StatusCode, err, body)
	}
	all := make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "caddy_sse_fanout_") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			s.t.Errorf("reading %q: %v", line, err)
		}
		if _, ok := all[line[:i]]; ok {
			s.t.Errorf("%s is exported twice", line[:i])
		}
		all[line[:i]] = value
	}
	return all
}

func isGauge(name string) bool {
	return !strings.Contains(name, "_total") && !strings.Contains(name, "delivery_seconds")
}

func TestMetricsOverReloads(t *testing.T) {
	origin := newLiveOrigin(t)
	// Two handlers, so that they meet in one registry. Every other reload changes
	// one of them, and leaves the other alone.
	directives := func(i int) string {
		return fmt.Sprintf("metrics /metrics\nsse_fanout /same %s\nsse_fanout /events %s {\nlinger 1ms\nstream_close_delay 50ms\nretry %ds\n}",
			origin.addr, origin.addr, 3+i/2%2)
	}
	s := run(t, directives(0))
	waitFor(t, "earlier tests to be over", func() bool { return s.scrape()["caddy_sse_fanout_topics"] == 0 })
	first := s.scrape()

	// Somebody scrapes all the time.
	stop := make(chan struct{})
	var scraping sync.WaitGroup
	last := first
	scrapes := 0
	scraping.Go(func() {
		for {
			now := s.scrape()
			scrapes++
			for name, value := range last {
				if got, ok := now[name]; !ok || got < value && !isGauge(name) {
					t.Errorf("%s was %v, and is %v (there: %v)", name, value, got, ok)
				}
			}
			last = now
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})

	stopScraping := sync.OnceFunc(func() { close(stop); scraping.Wait() })
	defer stopScraping()

	// join asks until it is not turned away: a request may come to a configuration
	// that is about to go.
	join := func() *stream {
		for {
			c := ask200(t, s.client, s.url+"/events")
			if !strings.HasPrefix(c.next(), "retry: ") {
				return c
			}
			c.cancel()
		}
	}

	same := open(t, s.client, s.url+"/same")
	const reloads, perRound = 20, 3
	rounds := 0
	for i := range reloads {
		var streams []*stream
		for range perRound {
			streams = append(streams, join())
		}
		rounds++
		waitFor(t, "the origin to be asked", func() bool { return origin.open() == 2 })
		origin.send(numbered(i, i))
		same.expect(numbered(i, i))
		for _, c := range streams {
			c.expect(numbered(i, i))
		}
		s.load(directives(i + 1))
		for _, c := range streams {
			c.cancel()
		}
		waitFor(t, "the round to be over", func() bool { return origin.open() == 1 })
	}
	waitFor(t, "the gauges to show what is left", func() bool {
		now := s.scrape()
		return now["caddy_sse_fanout_subscribers"] == 1 && now["caddy_sse_fanout_subscribers_waiting"] == 0
	})
	same.cancel()
	waitFor(t, "the last to have ended", func() bool { return s.scrape()["caddy_sse_fanout_subscribers"] == 0 })
	stopScraping()
	if scrapes < 10 {
		t.Errorf("scraped only %d times", scrapes)
	}

	now := s.scrape()
	change := func(name string) float64 { return now["caddy_sse_fanout_"+name] - first["caddy_sse_fanout_"+name] }
	clients := float64(rounds*perRound + 1)
	if got := change(`subscribers_joined_total{outcome="fresh"}`); got != clients {
		t.Errorf("%v have joined, want %v", got, clients)
	}
	if got := change("events_delivered_total"); got != float64(rounds*perRound+rounds) {
		t.Errorf("%v events were delivered, want %v", got, rounds*perRound+rounds)
	}
	ended := 0.
	for _, why := range observe.EndReasons {
		ended += change(fmt.Sprintf("subscribers_ended_total{reason=%q}", why))
	}
	if ended != clients {
		t.Errorf("%v have ended, want %v", ended, clients)
	}
	if names := slices.Collect(maps.Keys(now)); len(names) < 40 {
		t.Errorf("%d series are exported: %v", len(names), names)
	}
}
