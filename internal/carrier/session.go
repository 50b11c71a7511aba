// Package carrier brings to HTTP clients what their readers tell: from the goroutine of the
// request, or by handing the connection over to direct delivery.
package carrier

import (
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A Carrier is what the clients of a relay have in common.
type Carrier struct {
	// Timeout is how long a write may make no progress.
	Timeout time.Duration

	// Direct is what takes connections over, and HandsOver whether it is given any.
	Direct    *direct.Writer
	HandsOver bool

	// Sockets are those beneath the connections of clients.
	Sockets Sockets

	// Kept is told why a connection that could have been handed over was not.
	Kept func(reader *relay.Reader, why error)

	// Delivered is told of batches of direct delivery how long they took.
	Delivered func(took time.Duration)
}

// A Session is a client that is served by the goroutine of its request: for as long as
// that lasts, or until its connection is handed over to direct delivery. It carries what
// its reader tells.
type Session struct {
	carrier *Carrier
	reader  *relay.Reader
	w       http.ResponseWriter
	r       *http.Request

	// detachable is set while the connection may be handed over.
	detachable bool

	control    *http.ResponseController
	deadline   *deadline // of writes
	resumeIdle func()
}

// Begin begins to serve a client that was admitted. The header is to be written after it.
// Serve must be called then.
func (c *Carrier) Begin(w http.ResponseWriter, r *http.Request, reader *relay.Reader) *Session {
	s := &Session{carrier: c, reader: reader, w: w, r: r, control: http.NewResponseController(w)}
	s.deadline, s.resumeIdle = c.newDeadline(w, r)
	reader.Enter(s)
	s.detachable = c.handsOver(w, r)
	if s.detachable {
		// A connection that is taken from the HTTP server serves no other request.
		w.Header().Set("Connection", "close")
	}
	return s
}

// Serve returns when the stream has ended, or when the connection was handed over: then
// there is no reason. If it is to be aborted, the stream has ended inside an event, which a
// client must not take for a clean end.
func (s *Session) Serve() (reason relay.EndReason, abort bool) {
	defer s.resumeIdle()
	reason = s.run(s.r.Context().Done())

	exiting := s.deadline.end()
	if exiting && mayBeUnread(s.r) {
		// net/http reads what is left of a body before it closes the connection.
		_ = s.control.SetReadDeadline(time.Now())
	}
	if s.reader.IsCarried() {
		return "", false
	}
	s.reader.Ended(reason)
	if reason == relay.EndStalled && exiting {
		breakConn(s.r)
	}
	return reason, reason == relay.EndStalled
}

// mayBeUnread reports whether the connection of r may still have bytes of its body.
// Later versions than HTTP/1 keep them apart from the connection.
func mayBeUnread(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ContentLength != 0
}

// CloseIfUnread makes the answer to r the last of its connection if its body may be
// unread. Otherwise net/http would read the body before it writes the header, and wait
// for a client that does not send all of it.
func CloseIfUnread(w http.ResponseWriter, r *http.Request) {
	if mayBeUnread(r) {
		w.Header().Set("Connection", "close")
	}
}

// MaxWrite bounds what one write may take, so that a slow client that makes
// progress is not taken for one that does not.
const MaxWrite = 64 << 10

// run sends all that comes, until the stream ends or the connection is handed over.
func (s *Session) run(gone <-chan struct{}) relay.EndReason {
	if err := s.write(s.reader.Begin()); err != nil {
		return s.failed(err)
	}
	for {
		step := s.reader.Next()
		switch step.Kind {
		case relay.Send:
			if err := s.write(step.Words, step.Bytes); err != nil {
				return s.failed(err)
			}
			s.reader.Sent(step)
			continue
		case relay.End:
			return s.end(step.Reason)
		case relay.Wait:
		}
		if s.detachable && s.handOver() {
			return ""
		}
		select {
		case <-step.Wake:
		case <-step.Timer:
		case <-gone:
			return relay.EndClientGone
		}
	}
}

// end ends the stream between two events.
func (s *Session) end(reason relay.EndReason) relay.EndReason {
	if words := s.reader.Farewell(reason); len(words) > 0 {
		if err := s.write(words); err != nil {
			return s.failed(err)
		}
	}
	// What net/http writes to end the response must not wait for ever.
	s.deadline.last(s.carrier.Timeout)
	return reason
}

// failed says why a write failed.
func (s *Session) failed(err error) relay.EndReason {
	if errors.Is(err, os.ErrDeadlineExceeded) || s.deadline.passed() {
		return relay.EndStalled
	}
	return relay.EndClientGone
}

// write sends what is given and flushes it.
func (s *Session) write(parts ...[]byte) error {
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), MaxWrite)
			s.deadline.set(s.carrier.Timeout, s.reader.IsExiting())
			if _, err := s.w.Write(p[:n]); err != nil { //nolint:gosec // an event stream is no page
				return err
			}
			p = p[n:]
		}
	}
	if err := s.control.Flush(); err != nil {
		return err
	}
	s.deadline.clear()
	return nil
}

// Hurry implements relay.Carrier.
func (s *Session) Hurry() { s.deadline.hurry() }

// Cut implements relay.Carrier.
func (s *Session) Cut() { s.deadline.cut() }

// Interface guards
var _ relay.Carrier = (*Session)(nil)
