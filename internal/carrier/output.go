package carrier

import (
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// An Output writes to one HTTP client. Each write may make no progress for as long as the
// Service says, and is hurried when the process exits. One goroutine writes.
type Output struct {
	timeout time.Duration
	w       http.ResponseWriter
	r       *http.Request

	control    *http.ResponseController
	deadline   *deadline // of writes
	resumeIdle func()
}

// NewOutput returns the output of the answer to r. Caddy's own timeouts are suspended until
// its Close.
func (c *Service) NewOutput(w http.ResponseWriter, r *http.Request) *Output {
	o := &Output{timeout: c.Timeout, w: w, r: r, control: http.NewResponseController(w)}
	o.deadline, o.resumeIdle = c.newDeadline(w, r)
	return o
}

const (
	// maxWrite bounds what one write may take.
	maxWrite = 64 << 10

	// maxPiece bounds it where only a write that is done tells of progress.
	maxPiece = 16 << 10
)

// Write sends what is given and flushes it. exiting says that the process exits: then what
// is written now, and from now on, is bounded more narrowly.
func (o *Output) Write(exiting bool, parts ...[]byte) error {
	piece := o.deadline.piece()
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), piece)
			o.deadline.set(o.timeout, exiting)
			if _, err := o.w.Write(p[:n]); err != nil { //nolint:gosec // an event stream is no page
				return err
			}
			p = p[n:]
		}
	}
	if err := o.control.Flush(); err != nil {
		return err
	}
	o.deadline.clear()
	return nil
}

// Failed says why a write failed.
func (o *Output) Failed(err error) relay.EndReason {
	if errors.Is(err, os.ErrDeadlineExceeded) || o.deadline.passed() {
		return relay.EndStalled
	}
	return relay.EndClientGone
}

// Last is called behind the last write: what net/http writes to end the response must not
// wait for ever.
func (o *Output) Last() { o.deadline.last(o.timeout) }

// Close is called when the handler is about to return, with the reason why the stream is
// over, unless the connection was handed over. It reports whether the response must be
// aborted: a stream that has ended inside an event must not look like a clean end.
func (o *Output) Close(reason relay.EndReason) (abort bool) {
	defer o.resumeIdle()
	exiting := o.deadline.end()
	if exiting && mayBeUnread(o.r) {
		// net/http reads what is left of a body before it closes the connection.
		_ = o.control.SetReadDeadline(time.Now())
	}
	if reason == relay.EndStalled && exiting {
		breakConn(o.r)
	}
	return reason == relay.EndStalled
}

// Hurry implements relay.Carrier.
func (o *Output) Hurry() { o.deadline.hurry() }

// Cut implements relay.Carrier.
func (o *Output) Cut() { o.deadline.cut() }

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

// Interface guards
var _ relay.Carrier = (*Output)(nil)
