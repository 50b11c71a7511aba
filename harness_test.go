package ssefanout

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct/directtest"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// The tests of the root package that need no sockets run in a synctest bubble:
// an origin and clients in memory, and a clock that stands still until all of
// them wait.

var firstSeed = flag.Uint64("seed", 0, "the first seed of tests that draw at random; 0: the same as ever, or a new one where a run differs from the next anyway")

// seeds are n seeds in a row. Whoever draws with one tells it, in the name of a test
// or in the log.
func seeds(n uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i := range n {
			if !yield(*firstSeed + i) {
				return
			}
		}
	}
}

// A fakeOrigin is a source in memory. Each request to it becomes a conn that the
// test answers.
type fakeOrigin struct {
	t     *testing.T
	conns chan *conn
	open  atomic.Int64 // connections now
	most  atomic.Int64 // connections at once, ever
	total atomic.Int64
}

func newOrigin(t *testing.T) *fakeOrigin {
	return &fakeOrigin{t: t, conns: make(chan *conn, 100)}
}

// A conn is one request to an origin, and the script of the answer to it.
type conn struct {
	t       *testing.T
	request *http.Request
	at      time.Time // when it came
	do      chan func(http.ResponseWriter) error
	gone    chan struct{} // closed when the origin has answered to the end, or been cancelled
}

var errEnd = errors.New("end of script")

func (o *fakeOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	o.total.Add(1)
	n := o.open.Add(1)
	for most := o.most.Load(); n > most && !o.most.CompareAndSwap(most, n); {
		most = o.most.Load()
	}
	defer o.open.Add(-1)
	c := &conn{t: o.t, request: r, at: time.Now(), do: make(chan func(http.ResponseWriter) error), gone: make(chan struct{})}
	defer close(c.gone)
	o.conns <- c
	for {
		select {
		case step := <-c.do:
			if err := step(w); errors.Is(err, errEnd) {
				return nil
			} else if err != nil {
				return err
			}
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // as reverse_proxy does
		}
	}
}

// next returns the next request to the origin, which must have come.
func (o *fakeOrigin) next() *conn {
	o.t.Helper()
	synctest.Wait()
	select {
	case c := <-o.conns:
		return c
	default:
		o.t.Fatal("the origin was not asked")
		return nil
	}
}

// await waits for the next request to the origin, for as long as a backoff may
// last.
func (o *fakeOrigin) await() *conn {
	o.t.Helper()
	select {
	case c := <-o.conns:
		synctest.Wait()
		return c
	case <-time.After(2 * time.Hour):
		o.t.Fatal("the origin was not asked again")
		return nil
	}
}

// denyID gives the same answer to all requests with the id in force that come before the
// next one without.
func (o *fakeOrigin) denyID(answer func(*conn)) {
	o.t.Helper()
	for range relay.MaxDenials {
		c := o.await()
		if c.request.Header.Get("Last-Event-Id") == "" {
			o.t.Fatal("the origin was asked without an id")
		}
		answer(c)
	}
}

// denyCatchup gives the same answer to all requests of a catch-up whose id the origin refuses,
// until its clients are told of a gap.
func (o *fakeOrigin) denyCatchup(answer func(*conn)) {
	o.t.Helper()
	o.keepAnswering(time.Second, answer)
}

// keepAnswering gives the same answer to every request that comes within d.
func (o *fakeOrigin) keepAnswering(d time.Duration, answer func(*conn)) {
	o.t.Helper()
	over := time.After(d)
	for {
		select {
		case c := <-o.conns:
			answer(c)
		case <-over:
			synctest.Wait()
			return
		}
	}
}

// asked reports whether a request waits for next.
func (o *fakeOrigin) asked() bool {
	synctest.Wait()
	return len(o.conns) > 0
}

// idle checks that the origin was not asked again.
func (o *fakeOrigin) idle() {
	o.t.Helper()
	synctest.Wait()
	select {
	case c := <-o.conns:
		o.t.Fatalf("the origin was asked for %s", c.request.URL)
	default:
	}
}

func (c *conn) step(f func(http.ResponseWriter) error) {
	c.t.Helper()
	select {
	case c.do <- f:
	case <-c.gone:
		c.t.Fatal("the connection to the origin is gone")
	}
	synctest.Wait()
}

// accept answers with an event stream.
func (c *conn) accept() *conn {
	c.t.Helper()
	return c.answer(http.StatusOK, "Content-Type", "text/event-stream")
}

// answer sends a header of pairs.
func (c *conn) answer(status int, header ...string) *conn {
	c.t.Helper()
	c.step(func(w http.ResponseWriter) error {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		return nil
	})
	return c
}

// send writes a part of the body.
func (c *conn) send(text string) *conn {
	c.t.Helper()
	c.step(func(w http.ResponseWriter) error {
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	return c
}

// events sends events with the ids from..to, and data that names them.
func (c *conn) events(from, to int) *conn {
	c.t.Helper()
	return c.send(numbered(from, to))
}

func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "id: %d\ndata: event %d\n\n", i, i)
	}
	return b.String()
}

// end ends the answer cleanly.
func (c *conn) end() {
	c.t.Helper()
	c.step(func(http.ResponseWriter) error { return errEnd })
}

// fail ends the answer with an error of the handler, as reverse_proxy does when
// it cannot connect.
func (c *conn) fail(status int) {
	c.t.Helper()
	c.step(func(http.ResponseWriter) error {
		return caddyhttp.Error(status, errors.New("connecting to the origin: refused"))
	})
}

// abort breaks the connection.
func (c *conn) abort() {
	c.t.Helper()
	c.step(func(http.ResponseWriter) error { panic(http.ErrAbortHandler) })
}

// closed reports whether the connection has ended.
func (c *conn) closed() bool {
	synctest.Wait()
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// A setup is a handler in memory, with an origin as its source.
type setup struct {
	t       *testing.T
	origin  *fakeOrigin
	handler *Handler
	pool    *pool
	server  *caddyhttp.Server
	logs    *observer.ObservedLogs

	lineageName  string       // of handlers that replace each other
	backlogBytes int          // in place of the default, if it is set
	passed       atomic.Int64 // requests that went through one to one, in the wrapping form

	// The site of the wrapping form: what stands in front, which all requests pass,
	// the stranger's included, and what a survey of it would find.
	front  atomic.Pointer[func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error]
	around survey.Surroundings
	next   caddyhttp.MiddlewareHandler // stands behind, in place of origin and of what counts
}

// lead sets what stands in front, or nothing.
func (s *setup) lead(front func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error) {
	if front == nil {
		s.front.Store(nil)
		return
	}
	s.front.Store(&front)
}

// Enter implements site.Door.
func (s *setup) Enter(w http.ResponseWriter, r *http.Request) {
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, s.handler.server)
	if err := s.pass(w, r); err != nil {
		status := http.StatusInternalServerError
		if httpErr, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
			status = httpErr.StatusCode
		}
		w.WriteHeader(status)
	}
}

// pass leads a request through the front to the handler.
func (s *setup) pass(w http.ResponseWriter, r *http.Request) error {
	h := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return s.handler.ServeHTTP(w, r, caddyhttp.HandlerFunc(s.behind))
	})
	if front := s.front.Load(); front != nil {
		return (*front)(w, r, h)
	}
	return h(w, r)
}

// behind is the next handler of the route.
func (s *setup) behind(w http.ResponseWriter, r *http.Request) error {
	if s.next != nil {
		return s.next.ServeHTTP(w, r, nil)
	}
	if inquiryOf(r) != nil {
		return s.origin.ServeHTTP(w, r, nil)
	}
	s.passed.Add(1)
	_, err := io.WriteString(w, "passed "+r.Header.Get("Cookie"))
	return err
}

// Surroundings implements site.Door.
func (s *setup) Surroundings() *survey.Surroundings { return &s.around }

// IsActive implements site.Door: whether a configuration has started shows by its first
// request.
func (s *setup) IsActive() bool { return false }

// settingsOf returns the settings that a handler gets from its options.
func settingsOf(t testing.TB, h *Handler) *settings.Settings {
	t.Helper()
	s, err := settings.New(h.Options, h.wraps())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var setups atomic.Int64

// newSetup provisions a handler of the endpoint form. It is cleaned up at the
// end of the test, which fails if anything is left then.
func newSetup(t *testing.T, opts Options) *setup {
	t.Helper()
	return newSetupWithBacklog(t, opts, 0)
}

// newSetupWithBacklog is newSetup with another bound of what is kept of catch-ups.
func newSetupWithBacklog(t *testing.T, opts Options, bytes int) *setup {
	t.Helper()
	s := &setup{t: t, origin: newOrigin(t), backlogBytes: bytes}
	if overGzip {
		opts.Compress = settings.Compress{Encoding: "gzip", From: 1, WithCredentials: true}
	}
	s.handler = &Handler{Options: opts, instance: instance{source: s.origin, sockets: overSockets}}
	s.provision()
	return s
}

// newWrappingSetup provisions a handler of the wrapping form. Requests that go
// through one to one are counted and answered with their Cookie header.
func newWrappingSetup(t *testing.T, opts Options) *setup {
	t.Helper()
	s := &setup{t: t, origin: newOrigin(t)}
	if overGzip {
		opts.Compress = settings.Compress{Encoding: "gzip", From: 1, WithCredentials: true}
	}
	s.handler = &Handler{Options: opts, instance: instance{sockets: overSockets}}
	s.provision()
	return s
}

func (s *setup) provision() {
	s.t.Helper()
	h := s.handler
	core, logs := observer.New(zap.DebugLevel)
	h.logger, s.logs = zap.New(core), logs
	if s.server == nil {
		s.server = new(caddyhttp.Server)
	}
	h.server = s.server
	h.door = s
	h.settings = settingsOf(s.t, h)
	if s.backlogBytes > 0 {
		h.settings.BacklogBytes = s.backlogBytes
	}
	if err := h.Validate(); err != nil {
		s.t.Fatal(err)
	}
	if s.lineageName == "" {
		s.lineageName = fmt.Sprint("test ", setups.Add(1))
		counted = new(observe.Stats) // as in a process that has just started
	}
	h.lineage = joinLineage(s.lineageName, &h.instance)
	s.resolve()
	s.t.Cleanup(func() {
		_ = h.Cleanup()
		time.Sleep(time.Hour) // of the bubble's clock: drains and timers run out
		synctest.Wait()
		p := s.pool
		p.lineage.mu.Lock()
		inherited := len(p.lineage.handlers) > 0
		p.lineage.mu.Unlock()
		if inherited {
			return // it is for the cleanup of the last handler to check
		}
		if left := p.relay.Holdings(); !reflect.DeepEqual(left, relay.Holdings{}) {
			s.t.Errorf("left behind: %+v", left)
		}
		for _, other := range alive.all() {
			if other == p {
				s.t.Error("the pool is still alive")
			}
		}
		if n := s.origin.open.Load(); n != 0 {
			s.t.Errorf("%d connections to the origin are left", n)
		}
	})
}

// onlyTopic returns the topic that newcomers join, of which there must be one.
func (s *setup) onlyTopic() *relay.Topic {
	s.t.Helper()
	synctest.Wait()
	current, _ := s.pool.relay.Topics()
	if len(current) != 1 {
		s.t.Fatalf("there are %d topics, want 1", len(current))
	}
	return current[0]
}

// A client is a response writer in memory, and the request it is the answer to.
type client struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{} // closed when the answer is over
	err    error         // of ServeHTTP, once done is closed
	panic  any

	mu       sync.Mutex
	header   http.Header
	status   int
	body     strings.Builder
	gunzip   *gunzip // what comes into body, if it is compressed
	flushed  int     // bytes of body
	flushes  int
	writes   int
	deadline time.Time
	largest  int           // write
	stalled  bool          // the client does not read
	slowness time.Duration // how long the client takes for one write
	taken    int           // of body, by read

	// Over direct delivery.
	socket *directtest.Socket
	raw    []byte // of a chunk that has not come to its end
	whole  bool   // the last chunk has come
	ready  bool   // the client, which is slow, takes one write
	timing bool   // it will be ready
}

// serveAfter serves r after an earlier directive of the site has dealt with it, as it
// does with every request.
func (s *setup) serveAfter(r *http.Request, earlier func(*http.Request)) *client {
	s.t.Helper()
	s.lead(func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
		earlier(r)
		return h.ServeHTTP(w, r)
	})
	return s.serve(r)
}

// asBrowser makes r that of a browser's EventSource.
func asBrowser(r *http.Request) {
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Cache-Control", "no-cache")
	r.Header.Set("Pragma", "no-cache")
	r.Header.Set("User-Agent", "Mozilla/5.0")
}

// addHeader adds pairs to the header of r, in place of what a browser sends by itself.
func addHeader(r *http.Request, pairs []string) {
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Del(pairs[i])
	}
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
}

// get makes a request of a browser with header pairs and serves it in a goroutine.
func (s *setup) get(target string, header ...string) *client {
	s.t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	asBrowser(r)
	addHeader(r, header)
	return s.serve(r)
}

func (s *setup) serve(r *http.Request) *client {
	s.t.Helper()
	if overGzip && r.Header.Get("Accept-Encoding") == "" {
		r.Header.Set("Accept-Encoding", "gzip")
	}
	ctx, cancel := context.WithCancel(r.Context())
	c := &client{t: s.t, cancel: cancel, done: make(chan struct{}), header: make(http.Header)}
	ctx = context.WithValue(ctx, clientKey{}, c)
	r = caddyhttp.PrepareRequest(r.WithContext(ctx), caddy.NewReplacer(), c, s.handler.server)
	go func() {
		defer close(c.done)
		defer c.finish(ctx)
		defer c.outlive()
		defer func() { c.panic = recover() }()
		c.err = s.pass(c, r)
	}()
	s.t.Cleanup(c.leave)
	synctest.Wait()
	return c
}

func (c *client) Header() http.Header { return c.header }

func (c *client) WriteHeader(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == 0 {
		c.status = status
	}
}

func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for began := time.Now(); c.stalled || time.Since(began) < c.slowness; {
		if !c.deadline.IsZero() && !time.Now().Before(c.deadline) { // it may be set anew
			return 0, fmt.Errorf("writing: %w", os.ErrDeadlineExceeded)
		}
		if time.Since(began) > time.Hour {
			c.t.Error("a write without a deadline waits for ever")
			return 0, os.ErrDeadlineExceeded
		}
		c.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		c.mu.Lock()
	}
	if c.status == 0 {
		c.status = http.StatusOK
	}
	c.writes++
	c.largest = max(c.largest, len(p))
	return len(p), c.collect(p)
}

func (c *client) FlushError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushed = c.body.Len()
	c.flushes++
	return nil
}

func (c *client) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// leave hangs up and waits for the handler to return.
func (c *client) leave() {
	c.cancel()
	c.hangUp()
	<-c.done
	synctest.Wait() // until its leaving is noticed
}

// ended reports whether the handler has returned.
func (c *client) ended() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// read returns what has come since the last read, and checks that it was
// flushed and ends where a block ends (R5, R6).
func (c *client) read() string {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.body.String()
	if c.flushed != len(all) {
		c.t.Errorf("not flushed: %q", all[c.flushed:])
	}
	// Until the status is sent, the header is the handler's.
	last := all[strings.LastIndex(strings.TrimSuffix(all, "\n"), "\n")+1:] // line: a comment needs no blank one behind it
	if c.status != 0 && fields.IsEventStream(c.header) && all != "" && !strings.HasSuffix(all, "\n\n") && !strings.HasPrefix(last, ":") {
		c.t.Errorf("ends within a block: %q", all)
	}
	text := all[c.taken:]
	c.taken = len(all)
	return text
}

// expect reads and compares.
func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.read(); got != want {
		c.t.Errorf("client got %q, want %q", got, want)
	}
}

// expectStatus waits for the header.
func (c *client) expectStatus(want int) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != want {
		c.t.Errorf("client got status %d, want %d", c.status, want)
	}
}

// expectBody checks that the answer has ended, and what it was.
func (c *client) expectBody(want string) {
	c.t.Helper()
	if !c.ended() {
		c.t.Error("the answer has not ended")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := c.body.String(); got != want {
		c.t.Errorf("client got %q, want %q", got, want)
	}
}

// stall makes the client stop reading.
func (c *client) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = true
}

// primer is what a client gets first: with a position, if id is not empty.
func primer(id string) string {
	b := ": sse_fanout\nretry: 3000\n"
	if id != "" {
		b += "id: " + id + "\n"
	}
	return b + "\n"
}

// gapPrimer is what a client gets first, up to the notice of a gap, which is in
// the same block.
func gapPrimer(id string) string {
	return strings.TrimSuffix(primer(id), "\n")
}
