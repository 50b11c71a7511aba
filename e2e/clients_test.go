package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A ledgerOrigin is silent until the test publishes, and keeps all events. An even one
// is of the type tick. Who brings an id that it does not know is refused.
type ledgerOrigin struct {
	mu sync.Mutex

	// Guarded by mu.
	last int
	down bool
	wake chan struct{} // closed when something of the above changes
}

func (o *ledgerOrigin) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	close(o.wake)
	o.wake = make(chan struct{})
}

// publish makes two events happen, so that the newest has a type.
func (o *ledgerOrigin) publish() (newest int) {
	o.change(func() {
		o.last += 2
		newest = o.last
	})
	return newest
}

func (o *ledgerOrigin) setDown(down bool) { o.change(func() { o.down = down }) }

func (o *ledgerOrigin) state() (last int, down bool, wake chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last, o.down, o.wake
}

func (o *ledgerOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if loadsPage(r) {
		fmt.Fprint(w, "hello")
		return
	}
	last, down, wake := o.state()
	id := r.Header.Get("Last-Event-ID")
	if id == "" {
		id = r.URL.Query().Get("lastEventId")
	}
	sent := last
	if n, err := strconv.Atoi(id); err == nil && n <= last {
		sent = n
	} else if id != "" && !down {
		http.Error(w, "gone", http.StatusGone)
		return
	}
	if !down {
		w.Header().Set("Content-Type", "text/event-stream")
	}
	rc := http.NewResponseController(w)
	for {
		if down {
			panic(http.ErrAbortHandler) // nobody is told anything
		}
		for ; sent < last; sent++ {
			n := sent + 1
			fmt.Fprintf(w, "id: %d\n", n)
			if n%2 == 0 {
				fmt.Fprint(w, "event: tick\n")
			}
			fmt.Fprintf(w, "data: {\"n\":%d}\n\n", n)
		}
		if rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-wake:
		}
		last, down, wake = o.state()
	}
}

// An app is an application that uses a library, and what it has seen.
type app struct {
	library
	form  string
	asked string // the id that it began with
	tap   *tap
	leave context.CancelFunc

	mu sync.Mutex

	// Guarded by mu.
	last, count int
	rests       int // see library.restIsEvent
	followed    int // how often the application has begun to follow
	err         error
}

func (a *app) String() string {
	name := a.name + ", " + a.form
	if a.asked != "" {
		name += fmt.Sprintf(" from %q", a.asked)
	}
	return name
}

// passes says that what the application is sent is the origin's alone.
func (a *app) passes() bool { return a.form == "direct" || a.form == "wrapping" && a.alone != "" }

// see checks that an event is the next of the origin's.
func (a *app) see(s sight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return
	}
	a.err = func() error {
		if s.Data == nil {
			return fmt.Errorf("it has seen something without data: %v", s)
		}
		if a.restIsEvent && *s.Data == "" && *s.Type == "" && *s.ID == strconv.Itoa(a.last) {
			a.rests++
			return nil
		}
		var n int
		if _, err := fmt.Sscanf(*s.Data, `{"n":%d}`, &n); err != nil || *s.Data != fmt.Sprintf(`{"n":%d}`, n) {
			return fmt.Errorf("it has seen after event %d what is none of the origin's: %v", a.last, s)
		}
		step := 1
		if a.typed {
			step = 2
		}
		if a.last > 0 && n != a.last+step {
			return fmt.Errorf("it has seen after event %d event %d", a.last, n)
		}
		if s.ID != nil && *s.ID != strconv.Itoa(n) {
			return fmt.Errorf("it has seen event %d with the id %q", n, *s.ID)
		}
		if s.Type != nil {
			switch {
			case n%2 == 0 && *s.Type == "tick", n%2 == 1 && (*s.Type == "" || *s.Type == "message"):
			default:
				return fmt.Errorf("it has seen event %d with the type %q", n, *s.Type)
			}
		}
		a.last = n
		a.count++
		return nil
	}()
}

// run follows the stream until ctx ends. Where the library does not come back, the
// application does, with the last id that it has seen.
func (a *app) run(ctx context.Context, to target) {
	for ctx.Err() == nil {
		a.mu.Lock()
		a.followed++
		if a.count > 0 {
			to.lastID = strconv.Itoa(a.last)
		}
		a.mu.Unlock()
		a.follow(ctx, to, a.see)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // not as fast as it can
		}
	}
}

func (a *app) at() (last int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, a.err
}

func (a *app) begun() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.followed
}

// await polls until a condition holds for all, and fails as soon as one has seen
// something wrong.
func await(t *testing.T, apps []*app, what string, holds func(*app) bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var waiting []string
		for _, a := range apps {
			if last, err := a.at(); err == nil && !holds(a) {
				waiting = append(waiting, fmt.Sprintf("%v, at event %d", a, last))
			}
		}
		if len(waiting) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still not:\n\t%s", what, strings.Join(waiting, "\n\t"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

const (
	quietOptions = "heartbeat 300ms"
	toldGap      = ": gap:"
	primer       = ": sse_fanout\nretry: 200\n" // of browsers
)

// What applications see through Caddy is what the origin has sent, none more, none
// less, in order, whatever their libraries make of heartbeats, gaps and ends.
func TestClientLibraries(t *testing.T) {
	dir := installed(t, "testdata/clients")
	program(t, "curl", "curl")
	origin := &ledgerOrigin{wake: make(chan struct{})}
	server := inGo(t, origin)
	conns := countConnections(t, server.addr)
	// What only the origin knows.
	origin.publish()
	origin.publish()
	caddy := runCaddy(t, "", bothForms(conns.addr, quietOptions, "hello"))

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
	}()
	var libraries []library
	var scripts []*script
	for _, l := range nodeLibraries {
		args := []string{l.name}
		if l.browser != nil {
			args = append(args, program(t, l.browser[0], l.browser...))
		}
		s := runScript(t, dir, args...)
		l.follow = s.follow
		scripts = append(scripts, s)
		libraries = append(libraries, l)
	}
	for _, s := range scripts {
		s.awaitReady(t)
	}
	libraries = append(libraries, otherLibraries...)

	run := func(form, id string) (apps []*app) {
		for _, l := range libraries {
			if form == "wrapping" && l.alone != "" && id != "" {
				continue // an id that is unknown is the origin's business
			}
			if form == "page" && !l.page || form == "worker" && l.browser == nil {
				continue
			}
			to, path := target{lastID: id}, form
			address := strings.TrimPrefix(caddy.http, "http://")
			switch form {
			case "direct":
				address = conns.addr
			case "page":
				path = "endpoint"
				to.header = map[string]string{"user-agent": "Mozilla/5.0"}
			case "worker":
				path = "endpoint"
				to.worker = true
			case "wrapping":
				// It shares only requests for event streams.
				if l.reader && l.alone == "" {
					to.header = map[string]string{"accept": "text/event-stream"}
				}
			}
			ctx, cancel := context.WithCancel(ctx)
			a := &app{library: l, form: form, asked: id, tap: newTap(t, address), leave: cancel}
			// Nothing is published before all are connected. Who brings an id that nobody
			// knows begins wherever it is.
			switch n, err := strconv.Atoi(id); {
			case err == nil:
				a.last = n
			case id == "":
				a.last, _, _ = origin.state()
			}
			to.url = "http://" + a.tap.addr + "/" + path
			apps = append(apps, a)
			running.Go(func() { a.run(ctx, to) })
		}
		return apps
	}
	awaitOpen := func(apps []*app) {
		t.Helper()
		await(t, apps, "connected", func(a *app) bool {
			_, open := a.tap.opened()
			return open
		})
	}
	awaitNewest := func(apps []*app, newest int) {
		t.Helper()
		await(t, apps, fmt.Sprintf("at event %d", newest), func(a *app) bool {
			last, _ := a.at()
			return last == newest
		})
	}
	// Each client must have got some heartbeats.
	quiet := func(apps []*app) {
		t.Helper()
		want := make(map[*app]int)
		for _, a := range apps {
			want[a] = a.tap.heartbeats() + 3
		}
		await(t, apps, "three heartbeats", func(a *app) bool { return a.passes() || a.tap.heartbeats() >= want[a] })
	}

	runAll := func(id string) []*app {
		return slices.Concat(run("endpoint", id), run("wrapping", id), run("page", id), run("worker", id))
	}
	shared := runAll("")
	direct := run("direct", "")
	all := slices.Concat(direct, shared)
	step := func(name string, do func()) {
		t.Helper()
		began := time.Now()
		do()
		t.Logf("%s: %s", name, time.Since(began).Round(10*time.Millisecond))
	}
	step("connect", func() {
		awaitOpen(all)
		quiet(shared)
		awaitNewest(all, origin.publish())
		quiet(shared)
		awaitNewest(all, origin.publish())
	})
	step("restart of the origin", func() {
		quiet(shared)
		origin.setDown(true)
		origin.publish()
		quiet(shared)
		origin.setDown(false)
		awaitNewest(all, origin.publish())
	})
	step("reload without a change", func() {
		if err := caddy.load(t, "", bothForms(conns.addr, quietOptions, "hello again")); err != nil {
			t.Fatal(err)
		}
		quiet(shared)
		awaitNewest(all, origin.publish())
		for _, a := range shared {
			if n, _ := a.tap.opened(); n != 1 && !a.passes() {
				t.Errorf("%v has connected %d times, want once", a, n)
			}
		}
	})
	step("ids that are known, and are not", func() {
		known := runAll("2")
		unknown := runAll("nobody's")
		awaitOpen(append(known, unknown...))
		await(t, unknown, "told of the gap", func(a *app) bool { return a.tap.count(toldGap) > 0 })
		shared = slices.Concat(shared, known, unknown)
		all = slices.Concat(direct, shared)
		quiet(shared)
		awaitNewest(all, origin.publish())
		quiet(shared)
		awaitNewest(all, origin.publish())
	})
	step("lost connections", func() {
		quiet(shared)
		for _, a := range all {
			a.tap.cut()
		}
		origin.publish()
		awaitNewest(all, origin.publish())
		awaitOpen(all)
	})
	step("reload with a change", func() {
		quiet(shared)
		before := make(map[*app]int)
		for _, a := range shared {
			before[a], _ = a.tap.opened()
		}
		if err := caddy.load(t, "", bothForms(conns.addr, quietOptions+"\n\t\t\thistory 500", "hello again")); err != nil {
			t.Fatal(err)
		}
		origin.publish()
		await(t, shared, "sent to the new configuration", func(a *app) bool {
			n, open := a.tap.opened()
			return a.passes() || n > before[a] && open
		})
		awaitNewest(all, origin.publish())
		quiet(shared)
		awaitNewest(all, origin.publish())
	})
	step("end", func() {
		quiet(shared)
		for _, a := range shared {
			if n := a.begun(); a.browser != nil && n != 1 {
				t.Errorf("%v has given up %d times", a, n-1)
			}
			if a.passes() {
				a.leave() // Caddy would wait for it
			}
		}
		if !caddy.terminate(10 * time.Second) {
			t.Error("Caddy was still running 10 s after SIGTERM")
		}
		await(t, shared, "over", func(a *app) bool {
			_, open := a.tap.opened()
			return !open
		})
		// The direct ones are there for what the others see at the end.
		awaitNewest(direct, origin.publish())
		cancel()
		running.Wait()
	})

	newest, _, _ := origin.state()
	for _, a := range all {
		want := newest
		if a.form != "direct" {
			want -= 2
		}
		last, err := a.at()
		switch {
		case err != nil:
			t.Errorf("%v: %v\nit was sent %q", a, err, a.tap.bodies())
		case last != want:
			t.Errorf("%v has seen events up to %d, not up to %d", a, last, want)
		case a.rests > len(a.tap.bodies()):
			t.Errorf("%v has seen %d events without data, in %d streams", a, a.rests, len(a.tap.bodies()))
		}
		if a.browser != nil && !a.passes() {
			for _, body := range a.tap.bodies() {
				// A lost one may have had less.
				if start := body[:min(len(body), len(primer))]; !strings.HasPrefix(primer, string(start)) {
					t.Errorf("%v: a stream begins with %q, want %q", a, start, primer)
				}
			}
		}
		for _, header := range a.tap.answers() {
			if shared := header.Get("Incremental") == "?1"; shared == a.passes() {
				t.Errorf("%v: shared: %t, with the header %v", a, shared, header)
			}
		}
		if testing.Verbose() {
			t.Log(a.summary())
		}
	}
}

var (
	gapComment       = regexp.MustCompile(`(?m)^` + toldGap + `.*\n`)
	heartbeatAndLine = regexp.MustCompile(`(?m)^:\n\n?`)
)

func withoutHeartbeats(body []byte) []byte { return heartbeatAndLine.ReplaceAll(body, nil) }

var firstField = regexp.MustCompile(`(?m)^(id|event|data)`)

// summary is what an application has been told besides events.
func (a *app) summary() string {
	bodies := a.tap.bodies()
	if len(bodies) == 0 {
		return fmt.Sprintf("%v: nothing", a)
	}
	quiet := withoutHeartbeats(bodies[0])
	start := quiet
	if at := firstField.FindIndex(quiet); at != nil {
		start = quiet[:at[0]]
	}
	form := func(comment *regexp.Regexp) string {
		at := comment.FindIndex(bodies[0])
		switch {
		case at == nil:
			return "none"
		case bytes.HasPrefix(bodies[0][at[1]:], []byte("\n")):
			return "a comment and a blank line"
		}
		return "a comment"
	}
	// The last stream through Caddy was ended by it.
	end := bodies[len(bodies)-1]
	end = end[bytes.LastIndex(end, []byte("data: "))+1:]
	_, end, _ = bytes.Cut(end, []byte("\n\n"))
	end = withoutHeartbeats(end)
	header := a.tap.firstRequest()
	return fmt.Sprintf("%v: %d events and %d rests of %d streams, begun %d times by the application; "+
		"start %q, heartbeat: %s, gap: %s, end %q; Accept %q, Cache-Control %q, Pragma %q, User-Agent %.20q",
		a, a.count, a.rests, len(bodies), a.followed, start, form(heartbeat), form(gapComment), end,
		header.Get("Accept"), header.Get("Cache-Control"), header.Get("Pragma"), header.Get("User-Agent"))
}
