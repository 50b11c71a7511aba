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

// handOver hands the connection over to direct delivery, if s has all that there is
// and is not about to end. It reports whether it has.
func (s *session) handOver() bool {
	t := s.topic
	if s.unsettled || s.catchup != nil || s.log != t.log || s.ending != nil {
		return false
	}
	p := t.pool
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
	h := direct.Handover{
		FD:        fd,
		Client:    s.subscriber,
		Stream:    delivery{t, s.audience},
		Log:       t.log,
		Cursor:    s.cursor,
		Events:    s.events.Load(),
		Bytes:     s.bytes.Load(),
		EndAt:     s.endAt,
		EndReason: s.reason,
	}
	k, err := p.direct.Take(&h)
	if err != nil {
		direct.CloseDuplicate(fd)
		s.keep(err)
		return false
	}
	s.socket.Store(k)
	s.session.Store(nil)
	if s.deleted.Load() {
		k.End(endDeleted)
	}
	if err := p.sockets.detach(s.w); err != nil {
		// It cannot have two writers.
		k.End(endClientGone)
		panic(http.ErrAbortHandler)
	}
	return true
}

// keep leaves the connection where it is.
func (s *session) keep(why error) {
	s.detachable = false
	if c := s.topic.pool.log().Check(zapcore.DebugLevel, "delivering over the HTTP server"); c != nil {
		c.Write(zap.String("topic", s.topic.name), zap.Uint64("subscriber", s.number), zap.Error(why))
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

// Ending implements direct.Stream.
func (t *topic) Ending() *ending { return t.ending.Load() }

// Delivered implements direct.Stream.
func (t *topic) Delivered(clients int, d direct.Delivery) {
	stats := t.pool.stats
	stats.delivered.Add(uint64(clients * d.Events))
	stats.deliveredBytes.Add(uint64(clients * d.Bytes))
	// One observation for all that a batch was written to.
	deliverySeconds.Observe(time.Since(d.Since).Seconds())
}

// Beaten implements direct.Stream.
func (t *topic) Beaten(clients int) { t.pool.stats.heartbeats.Add(uint64(clients)) }
