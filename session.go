package ssefanout

import (
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A session is a client that is served by the goroutine of its request: for as long as
// that lasts, or until its connection is handed over to direct delivery. It carries what
// its reader tells.
type session struct {
	pool   *pool
	reader *relay.Reader
	w      http.ResponseWriter
	r      *http.Request

	// detachable is set while the connection may be handed over.
	detachable bool

	control  *http.ResponseController
	deadline *deadline // of writes
}

func newSession(p *pool, w http.ResponseWriter, r *http.Request, reader *relay.Reader) *session {
	return &session{pool: p, reader: reader, w: w, r: r, control: http.NewResponseController(w)}
}

// serve sends the header, and returns when the stream has ended or the connection was
// handed over.
func (s *session) serve(header http.Header) error {
	p, w, r := s.pool, s.w, s.r
	var resumeIdle func()
	s.deadline, resumeIdle = p.newDeadline(w, r)
	defer resumeIdle()
	s.reader.Enter(s)
	s.detachable = p.handsOver(w, r)
	if s.detachable {
		// A connection that is taken from the HTTP server serves no other request.
		w.Header().Set("Connection", "close")
	}
	p.writeHeader(w, r, header)
	reason := s.run(r.Context().Done())

	exiting := s.deadline.end()
	if exiting && mayBeUnread(r) {
		// net/http reads what is left of a body before it closes the connection.
		_ = s.control.SetReadDeadline(time.Now())
	}
	if s.reader.IsCarried() {
		describeEnd(r, s.reader, reasonHandedOver)
		return nil
	}
	describeEnd(r, s.reader, string(reason))
	s.reader.Ended(reason)
	if reason == relay.EndStalled {
		if exiting {
			breakConn(r)
		}
		// The stream ends inside an event, which a client must not take for a
		// clean end.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// writeHeader sends the header of an event stream.
func (p *pool) writeHeader(w http.ResponseWriter, r *http.Request, origins http.Header) {
	header := w.Header()
	fields.Copy(header, origins)
	p.opts.cors.apply(header, r)
	if !fields.IsEventStream(header) {
		header.Set("Content-Type", "text/event-stream")
	}
	// no-transform keeps compressing handlers away, ours and those on the way;
	// the two others are what nginx and RFC 10036 have for the same purpose.
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("Incremental", "?1")
	w.WriteHeader(http.StatusOK)
}

// maxWrite bounds what one write may take, so that a slow client that makes
// progress is not taken for one that does not.
const maxWrite = 64 << 10

// run sends all that comes, until the stream ends or the connection is handed over.
func (s *session) run(gone <-chan struct{}) relay.EndReason {
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
func (s *session) end(reason relay.EndReason) relay.EndReason {
	if words := s.reader.Farewell(reason); len(words) > 0 {
		if err := s.write(words); err != nil {
			return s.failed(err)
		}
	}
	// What net/http writes to end the response must not wait for ever.
	s.deadline.last(s.pool.dispatchTimeout())
	return reason
}

// failed says why a write failed.
func (s *session) failed(err error) relay.EndReason {
	if errors.Is(err, os.ErrDeadlineExceeded) || s.deadline.passed() {
		return relay.EndStalled
	}
	return relay.EndClientGone
}

// write sends what is given and flushes it.
func (s *session) write(parts ...[]byte) error {
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), maxWrite)
			s.deadline.set(s.pool.dispatchTimeout(), s.reader.IsExiting())
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
func (s *session) Hurry() { s.deadline.hurry() }

// Cut implements relay.Carrier.
func (s *session) Cut() { s.deadline.cut() }

// Interface guards
var _ relay.Carrier = (*session)(nil)
