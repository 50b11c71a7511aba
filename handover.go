package ssefanout

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A client that has all that there is needs nothing but its socket until the next
// event. Where that is possible, its connection is taken from the HTTP server then,
// and its handler returns: docs/direct.md.

// sockets are those beneath the connections of clients.
type sockets interface {
	// beneath reports whether there is a socket beneath the answer to r, with
	// nothing in between that changes what is written.
	beneath(w http.ResponseWriter, r *http.Request) bool

	// duplicate returns another descriptor of the socket.
	duplicate(r *http.Request) (fd int, err error)

	// detach takes the connection from the HTTP server, and closes it but for the
	// duplicate.
	detach(w http.ResponseWriter) error

	// network opens what direct delivery needs of the sockets.
	network() (direct.Network, error)
}

// handsOver reports whether the connection of r can be handed over. A body that may
// still come over it is for net/http to deal with.
func (p *pool) handsOver(w http.ResponseWriter, r *http.Request) bool {
	return p.opts.Direct != "off" && r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		!mayBeUnread(r) && !p.boundInTime(r) && p.sockets.beneath(w, r)
}

// handOver hands the connection over to direct delivery, if the client has all that there
// is and is not about to end. It reports whether it has.
func (s *session) handOver() bool {
	if !s.reader.CanHandOver() {
		return false
	}
	p := s.pool
	if !p.sockets.beneath(s.w, s.r) {
		// Only now that the header is written do all say what they make of it.
		s.keep(errChanged)
		return false
	}
	fd, err := p.sockets.duplicate(s.r)
	if err != nil {
		s.keep(err)
		return false
	}
	var carried socket
	err = s.reader.HandOver(func(h *relay.Handover) (_ relay.Carriage, err error) {
		carried.Socket, err = p.direct.Take(&direct.Handover{
			FD:        fd,
			Client:    directClient{s.reader.Subscriber},
			Stream:    delivery{s.reader.Topic(), s.reader.Audience()},
			Log:       h.Log,
			Cursor:    h.Cursor,
			Events:    h.Events,
			Bytes:     h.Bytes,
			EndAt:     h.EndAt,
			EndReason: direct.Reason(h.EndReason),
		})
		return carried, err
	})
	if err != nil {
		direct.CloseDuplicate(fd)
		s.keep(err)
		return false
	}
	if err := p.sockets.detach(s.w); err != nil {
		// It cannot have two writers.
		carried.End(relay.EndClientGone)
		panic(http.ErrAbortHandler)
	}
	return true
}

// keep leaves the connection where it is.
func (s *session) keep(why error) {
	s.detachable = false
	if c := s.pool.log().Check(zapcore.DebugLevel, "delivering over the HTTP server"); c != nil {
		c.Write(zap.String("topic", s.reader.Topic().Name()), zap.Uint64("subscriber", s.reader.Number()), zap.Error(why))
	}
}

var errChanged = errors.New("handing over a connection: another handler changes what is written to it")

// kernelSockets are those of the operating system.
type kernelSockets struct{}

func (kernelSockets) network() (direct.Network, error) { return direct.OpenKernel() }

func (kernelSockets) beneath(w http.ResponseWriter, r *http.Request) bool {
	if !direct.Supported || r.TLS != nil {
		return false
	}
	switch connOf(r).(type) {
	case *net.TCPConn, *net.UnixConn:
		return transparent(w)
	}
	return false
}

// boundInTime reports whether the operator has bounded how long a response may
// take, or how slow it may be, or has less patience with a write than we have. That
// is for the HTTP server to see to.
func (p *pool) boundInTime(r *http.Request) bool {
	if srv := serverOf(r); srv != nil && srv.WriteTimeout > 0 {
		return true
	}
	_, idle := caddyhttp.IdleTimeoutsFromContext(r.Context())
	return idle != nil && (idle.Deadline.MinRate > 0 || !idle.Deadline.HardDeadline.IsZero() ||
		idle.Deadline.Timeout < p.dispatchTimeout())
}

// transparent reports whether what is written to w is what is sent. That is so of
// the writers of net/http and of Caddy, unless they buffer or encode; of others
// nobody knows.
func transparent(w http.ResponseWriter) bool {
	header := w.Header()
	if header.Get("Content-Encoding") != "" || header.Get("Transfer-Encoding") != "" {
		return false
	}
	for {
		if rec, ok := w.(caddyhttp.ResponseRecorder); ok && rec.Buffered() && rec.Status() != 0 {
			return false
		}
		pkg := reflect.Indirect(reflect.ValueOf(w)).Type().PkgPath()
		if pkg == "net/http" {
			return true
		}
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok || !strings.HasPrefix(pkg+"/", caddysWriters) {
			return false
		}
		w = outer.Unwrap()
	}
}

// caddysWriters is where Caddy's own response writers are from.
const caddysWriters = "github.com/caddyserver/caddy/v2/modules/caddyhttp/"

func (kernelSockets) duplicate(r *http.Request) (int, error) {
	c, ok := connOf(r).(syscall.Conn)
	if !ok {
		return 0, errChanged
	}
	return direct.Duplicate(c)
}

func (kernelSockets) detach(w http.ResponseWriter) error {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("taking a connection from the HTTP server: %w", err)
	}
	return c.Close()
}

// A socket is a client that was handed over, as the engine has it.
type socket struct{ *direct.Socket }

// End implements relay.Carriage.
func (s socket) End(reason relay.EndReason) { s.Socket.End(direct.Reason(reason)) }

// A directClient is that client, as direct delivery has it.
type directClient struct{ *relay.Subscriber }

// Farewell implements direct.Client.
func (c directClient) Farewell(reason direct.Reason) []byte {
	return c.Subscriber.Farewell(relay.EndReason(reason))
}

// Ended implements direct.Client.
func (c directClient) Ended(reason direct.Reason, events, bytes uint64) {
	c.Leave(relay.EndReason(reason), events, bytes)
}

// A delivery is a topic as direct delivery has it: for one audience.
type delivery struct {
	topic    *relay.Topic
	audience uint8
}

// A directEnding is how the clients of a topic end, in both languages: direct delivery
// knows by the pointer that it has seen it.
type directEnding struct {
	of *relay.Ending
	direct.Ending
}

// Ending implements direct.Stream.
func (d delivery) Ending() *direct.Ending {
	e := d.topic.Ending()
	if e == nil {
		return nil
	}
	u := upstreamOf(d.topic)
	for {
		known := u.ended.Load()
		if known != nil && known.of == e {
			return &known.Ending
		}
		ending := directEnding{e, direct.Ending{Reason: direct.Reason(e.Reason), Over: e.Over, Drain: e.Drain}}
		if e.Reason == relay.EndExiting {
			ending.Grace = exitGrace
		}
		u.ended.CompareAndSwap(known, &ending)
	}
}

// Heartbeat implements direct.Stream.
func (d delivery) Heartbeat() []byte { return d.topic.Words(d.audience).Heartbeat }

// Gap implements direct.Stream.
func (d delivery) Gap() []byte { return d.topic.Words(d.audience).Gap }

// Delivered implements direct.Stream.
func (d delivery) Delivered(clients int, batch direct.Delivery) {
	d.topic.CountDelivery(uint64(clients*batch.Events), uint64(clients*batch.Bytes))
	// One observation for all that a batch was written to.
	deliverySeconds.Observe(time.Since(batch.Since).Seconds())
}

// Beaten implements direct.Stream.
func (d delivery) Beaten(clients int) { d.topic.CountHeartbeats(uint64(clients)) }

// Interface guards
var (
	_ direct.Stream  = delivery{}
	_ direct.Client  = directClient{}
	_ relay.Carriage = socket{}
)
