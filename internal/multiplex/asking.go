package multiplex

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// An Asking is one request for a stream that goes through the site, with the credentials of
// the client. What answers it either gives a reader (Take), or writes an event stream, or
// refuses.
type Asking struct {
	Stream

	// Mark is the position that the client has brought of this stream, if it has. Lost says
	// that it had one, and that nobody can tell which.
	Mark Mark
	Lost bool

	conn   *Conn
	ctx    context.Context
	cancel context.CancelFunc
	answer answer

	mu sync.Mutex

	// Guarded by mu.
	news news
}

// news are what the goroutine of a connection learns of a request.
type news struct {
	status   int           // of the answer, once it is known
	admitted bool          // it is an event stream that the client may read
	reader   *relay.Reader // of the topic that it shares
	pipe     *pipe         // or what brings its events
	delay    time.Duration // it is to be asked for again then, as a limit is reached
	aborted  bool          // the answer was broken off
	tooLarge bool          // by us, as an event has passed Options.MaxEventSize
	over     bool          // nothing more comes of it
}

type askingKey struct{}

// Of returns the Asking that a request is, or nil if it is none.
func Of(r *http.Request) *Asking {
	a, _ := r.Context().Value(askingKey{}).(*Asking)
	return a
}

// Context returns the context of the request. It is derived from no other: what the site has
// made of the client's own request must not be seen by it.
func (a *Asking) Context() context.Context { return a.ctx }

// Take makes the connection serve the reader of the topic that the request shares. The
// header of the answer is to be written after it. The reader is closed by the connection,
// also if that header is not what the client gets.
func (a *Asking) Take(reader *relay.Reader) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.news.reader = reader
}

// TurnAway makes the stream be asked for again later, as a limit is reached now.
func (a *Asking) TurnAway(delay time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.news.delay = delay
}

// IsPlain reports whether what is written to w is what the client gets: no handler in front
// has put a writer in between that may alter events. Only then Take may be called.
func (a *Asking) IsPlain(w http.ResponseWriter) bool { return carrier.Transparent(w, "") }

// run asks. It returns when nothing more comes.
func (a *Asking) run() {
	defer func() {
		// What a handler's panic means, net/http knows of a client's own request: the answer
		// is broken off.
		p := recover()
		if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
			a.conn.options.Panicked(p)
		}
		if p == nil && a.look().delay == 0 {
			a.answer.WriteHeader(http.StatusOK) // as net/http does for an empty response
		}
		a.cancel()
		a.mu.Lock()
		a.news.over, a.news.aborted = true, p != nil
		a.news.tooLarge = errors.Is(a.answer.err, sse.ErrEventTooLarge)
		a.mu.Unlock()
		a.conn.notify()
	}()
	a.conn.options.Ask(a, &a.answer)
}

// look returns what is known.
func (a *Asking) look() news {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.news
}

// decide is called with the header of the answer.
func (a *Asking) decide(status int, header http.Header) {
	admitted := status == http.StatusOK && fields.IsEventStream(header) &&
		!isCoded(header) && a.conn.options.Admits(header)
	if !a.conn.options.Admits(header) {
		// A page of another site learns nothing of what it may not read.
		status = http.StatusForbidden
	}
	if status == http.StatusOK && !admitted && fields.IsEventStream(header) {
		status = http.StatusForbidden
	}
	a.mu.Lock()
	a.news.status, a.news.admitted = status, admitted
	if admitted && a.news.reader == nil {
		a.news.pipe = &pipe{notify: a.conn.notify}
		a.answer.decoder = sse.NewDecoder(a.conn.options.MaxEventSize, a.answer.event)
		a.answer.pipe = a.news.pipe
	}
	a.mu.Unlock()
	if !admitted {
		a.cancel() // it may be an endless stream
	}
	a.conn.notify()
}

// isCoded reports whether a body has a content coding. Some servers name identity, which is
// none (RFC 9110, section 8.4.1).
func isCoded(header http.Header) bool {
	for coding := range fields.Items(header["Content-Encoding"]) {
		if !strings.EqualFold(coding, "identity") {
			return true
		}
	}
	return false
}

// An answer takes what the site answers.
type answer struct {
	asking  *Asking
	header  http.Header
	decided bool

	pipe    *pipe // nil unless events are to come
	decoder *sse.Decoder
	err     error
}

// Header implements http.ResponseWriter.
func (w *answer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *answer) WriteHeader(status int) {
	if w.decided || status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	w.decided = true
	w.asking.decide(status, w.header)
}

// Write implements http.ResponseWriter.
func (w *answer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.pipe == nil {
		return len(p), nil
	}
	if w.err == nil {
		_, err := w.decoder.Write(p)
		if w.err == nil {
			w.err = err
		}
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// event takes an event of the answer.
func (w *answer) event(e *sse.Event) {
	if w.err == nil {
		w.err = w.pipe.put(w.asking.ctx, sse.Append(nil, e))
	}
}

// FlushError sends the header, as it does in net/http.
func (w *answer) FlushError() error {
	w.WriteHeader(http.StatusOK)
	return w.err
}

// A server sets deadlines for the requests of its clients. Those of the connection bound
// this one.

// SetReadDeadline does nothing.
func (w *answer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (w *answer) SetWriteDeadline(time.Time) error { return nil }

// EnableFullDuplex does nothing: there is no body to read.
func (w *answer) EnableFullDuplex() error { return nil }

// IsBottom implements carrier.Bottom.
func (w *answer) IsBottom() {}

// Interface guards
var (
	_ http.ResponseWriter = (*answer)(nil)
	_ carrier.Bottom      = (*answer)(nil)
)
