package jetstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// testLease is short, so that tests need not wait long for one to end.
const testLease = time.Second

// startServer runs a NATS server in this process.
func startServer(t testing.TB) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: "test", DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not get ready")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// A link is the network between a node and a server. It can be cut, and it can be stopped:
// then nothing gets through, and nothing is lost.
type link struct {
	mu      sync.Mutex
	server  nats.InProcessConnProvider
	isCut   bool
	stopped chan struct{} // closed unless it is stopped
	held    chan struct{} // the same for what comes from the server
	conns   map[*linked]struct{}
}

func newLink(s nats.InProcessConnProvider) *link {
	open := make(chan struct{})
	close(open)
	return &link{server: s, stopped: open, held: open, conns: make(map[*linked]struct{})}
}

// InProcessConn implements nats.InProcessConnProvider.
func (l *link) InProcessConn() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		return nil, errors.New("the link is cut")
	}
	conn, err := l.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	c := &linked{Conn: conn, link: l, frozen: make(chan struct{}), closed: make(chan struct{})}
	l.conns[c] = struct{}{}
	return c, nil
}

// cut ends all connections, and lets none be made until it is called with false.
func (l *link) cut(is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = is
	if is {
		for c := range l.conns {
			c.Close()
		}
		clear(l.conns)
	}
}

// stop holds everything up until the function that it returns is called.
func (l *link) stop() (goOn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(chan struct{})
	l.stopped = held
	return func() { close(held) }
}

func (l *link) pass() {
	l.mu.Lock()
	held := l.stopped
	l.mu.Unlock()
	<-held
}

// hold keeps what comes from the server until the function that it returns is called.
func (l *link) hold() (goOn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(chan struct{})
	l.held = held
	return func() { close(held) }
}

// freeze makes the connections that there are half open: nothing gets through any more, and
// neither side is told.
func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		close(c.frozen)
	}
	clear(l.conns)
}

type linked struct {
	net.Conn
	link   *link
	frozen chan struct{} // closed when nothing gets through any more
	closed chan struct{}
	once   sync.Once
}

// isFrozen waits until something may get through, and reports whether nothing ever will.
func (c *linked) isFrozen() bool {
	c.link.pass()
	select {
	case <-c.frozen:
		return true
	default:
		return false
	}
}

func (c *linked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.link.mu.Lock()
	held := c.link.held
	c.link.mu.Unlock()
	<-held
	if c.isFrozen() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *linked) Write(p []byte) (int, error) {
	if c.isFrozen() {
		return len(p), nil // as a kernel takes it that waits for the other side
	}
	return c.Conn.Write(p)
}

func (c *linked) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// An origin has numbered events, and sends them from behind the id that it is asked with.
type origin struct {
	mu      sync.Mutex
	changed chan struct{}
	events  int
	open    map[*dial]struct{}
	most    int // connections at once
	dials   int // that there were
	asked   []string
	fetched []string        // what was asked for catch-ups
	refuses map[string]bool // nodes that do not reach it
	held    map[string]bool // nodes that it sends nothing to, until the test lets it
	noIDs   bool
	ignores bool               // the id that it is asked with: it sends all that it has
	forgot  int                // how many events, the oldest ones: it refuses to send what follows their ids
	retries bool               // each connection begins with a reconnection time
	greets  bool               // each connection begins with an event that tells how many there were
	says    *relay.Outcome     // what it answers with, instead of a stream
	breaks  []chan error       // ends of the connections: with nil, as a stream should end
	text    func(n int) string // the data of an event
}

// A dial is an origin as one node reaches it.
type dial struct {
	*origin
	node string
}

func newOrigin() *origin {
	return &origin{changed: make(chan struct{}), open: make(map[*dial]struct{}), refuses: make(map[string]bool), held: make(map[string]bool), text: strconv.Itoa}
}

// send makes the origin have more events.
func (o *origin) send(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events += n
	o.signal()
}

func (o *origin) signal() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// end ends all connections, with nil as a stream should end.
func (o *origin) end(why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.breaks {
		c <- why
	}
	o.breaks = nil
}

// answer makes the origin answer with something else than a stream from now on.
func (o *origin) answer(out *relay.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.says = out
}

// restart ends all connections, and makes the origin have nothing but what it sends next.
func (o *origin) restart(why error) {
	o.empty()
	o.end(why)
}

// empty makes the origin have nothing.
func (o *origin) empty() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = 0
}

// ignore makes the origin send all that it has, whatever id it is asked with.
func (o *origin) ignore() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ignores = true
}

// forget makes the origin refuse to send what follows the oldest events.
func (o *origin) forget(oldest int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgot = oldest
}

// forbid makes a node not reach the origin.
func (o *origin) forbid(node string, is bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuses[node] = is
	o.signal()
}

// hold makes a node hear nothing of the origin.
func (o *origin) hold(node string, is bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[node] = is
	o.signal()
}

// sent returns how many events there are.
func (o *origin) sent() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.events
}

func (o *origin) connections() (now, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open), o.most
}

// fetches returns what was asked for catch-ups.
func (o *origin) fetches() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.fetched)
}

// askers returns which nodes have connections.
func (o *origin) askers() (nodes []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for d := range o.open {
		nodes = append(nodes, d.node)
	}
	return nodes
}

func (o *origin) questions() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.asked...)
}

// Follow implements relay.Source.
func (d *dial) Follow(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
	at := 0
	if from.ID != "" {
		at, _ = strconv.Atoi(from.ID)
	}
	me := &dial{d.origin, d.node}
	broken := make(chan error, 1)
	d.mu.Lock()
	if d.refuses[d.node] {
		d.mu.Unlock()
		return relay.Outcome{Err: errors.New("no route to the origin")}
	}
	if says := d.says; says != nil {
		d.asked = append(d.asked, d.node+":"+from.ID)
		d.mu.Unlock()
		return *says
	}
	if !sink.Shared() {
		d.fetched = append(d.fetched, d.node+":"+from.ID)
	}
	if from.ID != "" && at < d.forgot {
		d.mu.Unlock()
		return relay.Outcome{Verdict: relay.No, Status: 410}
	}
	if sink.Shared() {
		d.open[me] = struct{}{}
		d.most = max(d.most, len(d.open))
		d.asked = append(d.asked, d.node+":"+from.ID)
	}
	if d.noIDs || from.ID == "" {
		at = d.events
	}
	if d.ignores {
		at = 0
	}
	d.breaks = append(d.breaks, broken)
	dials := d.dials
	d.dials++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.open, me)
	}()
	sink.Heard()
	if tell := sink.Accept(relay.Opening{Header: map[string][]string{"X-Origin": {"yes"}}}); tell != nil {
		tell()
	}
	if d.retries {
		sink.Event(&sse.Event{HasRetry: true, Retry: time.Second})
	}
	if d.greets {
		sink.Event(&sse.Event{HasData: true, Data: fmt.Append(nil, "connection ", dials)})
	}
	for {
		d.mu.Lock()
		events, changed, refuses, held := d.events, d.changed, d.refuses[d.node], d.held[d.node]
		d.mu.Unlock()
		if held {
			<-changed
			continue
		}
		if refuses {
			return relay.Outcome{Verdict: relay.Stream, Err: io.ErrUnexpectedEOF}
		}
		for ; at < events; at++ {
			e := sse.Event{HasData: true, Data: []byte(d.text(at + 1))}
			if !d.noIDs {
				e.HasID, e.ID = true, fmt.Append(nil, at+1)
			}
			sink.Event(&e)
		}
		sink.Flush()
		select {
		case <-ctx.Done():
			return relay.Outcome{Err: context.Cause(ctx)}
		case why := <-broken:
			return relay.Outcome{Verdict: relay.Stream, Err: why}
		case <-changed:
		}
	}
}

func (*dial) Abandoned() int   { return 0 }
func (*dial) Moved() bool      { return false }
func (*dial) LeftBehind() bool { return false }

// A clock can be stopped.
type clock struct{ stopped atomic.Pointer[time.Time] }

func (c *clock) stop() {
	now := time.Now()
	c.stopped.Store(&now)
}

func (c *clock) start() { c.stopped.Store(nil) }

func (c *clock) now() time.Time {
	if at := c.stopped.Load(); at != nil {
		return *at
	}
	return time.Now()
}

// A node is a relay with a part in a fleet.
type node struct {
	t      testing.TB
	name   string
	link   *link
	clock  clock
	conn   *nats.Conn
	fleet  *Fleet
	relay  *relay.Relay
	origin *origin
	lossy  *lossy
	logs   *observer.ObservedLogs
	ended  sync.Once
	assign bool

	mu      sync.Mutex
	sources []*source
}

type options struct {
	assign   bool
	replicas int
	secret   string
	stream   string
	lease    time.Duration
	engine   func(*relay.Config)
}

func newNode(t testing.TB, s nats.InProcessConnProvider, o *origin, name string, opts options) *node {
	t.Helper()
	n := &node{t: t, name: name, link: newLink(s), origin: o, assign: opts.assign}
	core, logs := observer.New(zapcore.InfoLevel)
	n.logs = logs
	if testing.Verbose() && os.Getenv("FLEET_LOG") != "" {
		core = zapcore.NewTee(core, zap.Must(zap.NewDevelopment()).Core())
	}
	if opts.secret == "" {
		opts.secret = "the secret of the fleet"
	}
	if opts.stream == "" {
		opts.stream = "FLEET"
	}
	if opts.lease == 0 {
		opts.lease = testLease
	}
	app := &App{Lease: caddy.Duration(opts.lease), logger: zap.New(core)}
	reached, err := app.natsOptions(name)
	if err != nil {
		t.Fatal(err)
	}
	n.conn, err = nats.Connect("", append(reached, nats.InProcessServer(n.link), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(10*time.Millisecond, 0))...)
	if err != nil {
		t.Fatal(err)
	}
	n.fleet, err = New(n.conn, name, []byte(opts.secret), Settings{
		Stream: opts.stream, Replicas: max(1, opts.replicas), Memory: true, Lease: opts.lease, HistoryEvents: 10000, HistoryAge: 5 * time.Minute,
	}, zap.New(core).With(zap.String("node", name)))
	if err != nil {
		t.Fatal(err)
	}
	n.fleet.store.now = n.clock.now
	n.lossy = &lossy{JetStream: n.fleet.store.js}
	n.fleet.store.js = n.lossy
	cfg := relay.Config{
		Heartbeat:      -1,
		Words:          []relay.Words{{Heartbeat: []byte(":\n\n"), Gap: []byte("event: gap\ndata:\n\n")}},
		History:        hub.Limits{Events: 10000, Bytes: 4 << 20, Age: 5 * time.Minute},
		AssignIDs:      opts.assign,
		Catchups:       2,
		CatchupTimeout: 10 * time.Second,
		BacklogBytes:   64 << 20,
		Linger:         -1,
		LingerTopics:   100,
		Wait:           20 * time.Second,
		ReconnectMin:   20 * time.Millisecond,
		ReconnectMax:   100 * time.Millisecond,
		MaxEventSize:   2 << 20,
		Limits:         quota.Limits{Topics: 10000},
	}
	if opts.engine != nil {
		opts.engine(&cfg)
	}
	n.relay = relay.New(cfg, silent{}, new(relay.Stats))
	t.Cleanup(n.end)
	return n
}

// end is a node that exits.
func (n *node) end() {
	n.ended.Do(func() {
		n.relay.End(relay.Ending{Reason: relay.EndExiting})
		n.fleet.Close()
		n.conn.Close()
	})
}

// stop is a node that does nothing until the function is called that it returns, and then
// goes on as if no time had passed for a moment.
func (n *node) stop() (goOn func()) {
	n.clock.stop()
	pass := n.link.stop()
	n.origin.hold(n.name, true)
	return func() {
		pass()
		n.origin.hold(n.name, false)
		time.Sleep(20 * time.Millisecond)
		n.clock.start()
	}
}

// isApart reports whether a topic of the node is without the fleet.
func (n *node) isApart() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sources {
		s.mu.Lock()
		isOver := s.isOver
		s.mu.Unlock()
		if !isOver && s.contest.look().away {
			return true
		}
	}
	return false
}

// kill is a node that dies: nothing that it does gets through any more.
func (n *node) kill() {
	n.origin.forbid(n.name, true)
	n.link.cut(true)
	n.relay.End(relay.Ending{Reason: relay.EndExiting})
}

// source returns the newest source of the node.
func (n *node) source() *source {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sources[len(n.sources)-1]
}

// isConnected reports whether the topic of the node has a connection.
func (n *node) isConnected() bool {
	current, _ := n.relay.Topics()
	for _, t := range current {
		return t.IsConnected()
	}
	return false
}

// leads returns how many leases the node holds.
func (n *node) leads() (leases int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sources {
		if s.contest.look().reign != 0 {
			leases++
		}
	}
	return leases
}

// join returns a client of a topic of the node, which was not admitted yet.
func (n *node) join(topic, id string) *relay.Reader {
	n.t.Helper()
	r, rejected, err := n.relay.Join(&relay.Visit{
		Key:  topic,
		Name: func() string { return topic },
		Open: func(t *relay.Topic) relay.Source {
			s := n.fleet.Source(fleet.Topic{
				Topic: t, Definition: "definition", AssignIDs: n.assign, MaxEventSize: 2 << 20,
			}, &dial{n.origin, n.name}).(*source)
			n.mu.Lock()
			defer n.mu.Unlock()
			n.sources = append(n.sources, s)
			return s
		},
		Claim:   relay.Claim{ID: id},
		Address: "192.0.2.1",
	})
	if err != nil || rejected != "" {
		n.t.Fatalf("%s: joining: %v, %s", n.name, err, rejected)
	}
	return r
}

// A client reads the stream of a topic.
type client struct {
	t     testing.TB
	topic string
	mu    sync.Mutex
	got   []string // data of events, and "gap"
	id    string
	more  chan struct{}
	over  chan struct{} // closed when the stream has ended
	stop  context.CancelFunc

	served atomic.Bool
}

func (c *client) isServed() bool { return c.served.Load() }

// newClient joins a node, and reads until it is closed or the node ends its stream.
func newClient(n *node, id string) *client { return newClientOf(n, "topic", id) }

// newClientOf is newClient for one of several topics.
func newClientOf(n *node, topic, id string) *client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{t: n.t, topic: topic, id: id, more: make(chan struct{}), over: make(chan struct{}), stop: cancel}
	c.serve(ctx, n)
	n.t.Cleanup(c.close)
	return c
}

// move goes on at another node, with the id that the client has.
func (c *client) move(n *node) {
	c.close()
	ctx, cancel := context.WithCancel(context.Background())
	c.over, c.stop = make(chan struct{}), cancel
	c.serve(ctx, n)
}

func (c *client) close() {
	c.stop()
	<-c.over
}

func (c *client) serve(ctx context.Context, n *node) {
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	r := n.join(c.topic, id)
	over := c.over
	go func() {
		defer close(over)
		defer r.Close()
		adm := r.Admit(ctx)
		if adm.Gone {
			return
		}
		if no := adm.Refusal; no != nil {
			c.note(fmt.Sprintf("refused: %d %v %s", no.Status, no.Header, no.Body), "")
			return
		}
		if adm.Rejected != "" {
			c.note(fmt.Sprintf("rejected: %s", adm.Rejected), "")
			return
		}
		r.Enter(idle{})
		decoder := sse.NewDecoder(4<<20, func(e *sse.Event) {
			id := ""
			if e.HasID {
				id = string(e.ID)
			}
			if string(e.Type) == "gap" {
				c.note("gap", id)
			} else if e.HasData {
				c.note(string(e.Data), id)
			}
		})
		decoder.Write(r.Begin())
		c.served.Store(true)
		for {
			switch step := r.Next(); step.Kind {
			case relay.Send:
				decoder.Write(step.Words)
				decoder.Write(step.Bytes)
				r.Sent(step)
			case relay.Wait:
				select {
				case <-step.Wake:
				case <-step.Timer:
				case <-ctx.Done():
					r.Ended(relay.EndClientGone)
					return
				}
			case relay.End:
				r.Ended(step.Reason)
				return
			}
		}
	}()
}

func (c *client) note(what, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, what)
	if id != "" {
		c.id = id
	}
	close(c.more)
	c.more = make(chan struct{})
}

func (c *client) lastID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

func (c *client) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.got...)
}

// await waits until the client has got something.
func (c *client) await(what string) *client {
	c.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		got, more := c.got, c.more
		c.mu.Unlock()
		if slices.Contains(got, what) {
			return c
		}
		select {
		case <-more:
		case <-deadline:
			c.t.Fatalf("has not got %.20s but %.20v", what, tail(got))
		}
	}
}

// awaitAll waits until the client has got some things, and nothing else.
func (c *client) awaitAll(want []string) {
	c.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		got, more := c.got, c.more
		c.mu.Unlock()
		if len(got) >= len(want) {
			if !slices.Equal(got, want) {
				c.t.Fatalf("has got %v, want %v", got, want)
			}
			return
		}
		select {
		case <-more:
		case <-deadline:
			c.t.Fatalf("has got %v, want %v", got, want)
		}
	}
}

// sequence checks that the client has got all events from one number to another.
func (c *client) sequence(from, to int) {
	c.t.Helper()
	got := c.all()
	for i, g := range got {
		if g != strconv.Itoa(from+i) {
			c.t.Fatalf("has got %s in the place of %d: %v", g, from+i, got[max(0, i-3):min(len(got), i+10)])
		}
	}
	if len(got) != to-from+1 {
		c.t.Errorf("has got %d events of %d to %d", len(got), from, to)
	}
}

func tail(got []string) []string { return got[max(0, len(got)-20):] }

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			if os.Getenv("FLEET_LOG") != "" {
				_ = pprof.Lookup("goroutine").WriteTo(os.Stdout, 2)
			}
			t.Fatalf("it has not come to that: %s", what)
		}
	}
}

// holder returns the node that holds the lease, or nil.
func holder(nodes ...*node) *node {
	for _, n := range nodes {
		n.mu.Lock()
		sources := n.sources
		n.mu.Unlock()
		if len(sources) > 0 && sources[len(sources)-1].contest.look().reign != 0 {
			return n
		}
	}
	return nil
}

// idle is a carrier that does nothing.
type idle struct{}

func (idle) Hurry() {}
func (idle) Cut()   {}

// silent is an observer that does nothing.
type silent struct{}

func (silent) Connected(*relay.Topic, relay.Connected)   {}
func (silent) Lost(*relay.Topic, relay.Lost)             {}
func (silent) Closed(*relay.Topic, relay.Closed)         {}
func (silent) Stayed(*relay.Topic, *relay.Outcome)       {}
func (silent) Drained(*relay.Topic, *relay.Outcome)      {}
func (silent) Refused(*relay.Topic, *relay.Outcome)      {}
func (silent) Restricted(*relay.Topic, *relay.Outcome)   {}
func (silent) CaughtUp(*relay.Topic, relay.CaughtUp)     {}
func (silent) Dropped(uint64, int)                       {}
func (silent) Yielded(*relay.Topic)                      {}
func (silent) Left(*relay.Subscriber, relay.Left)        {}
func (silent) Delivered(time.Duration)                   {}
func (silent) Retired()                                  {}
func (silent) Misfit(*relay.Topic, relay.Misfit, uint64) {}
