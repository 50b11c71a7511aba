package ssefanout

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// An answer is what a source writes to: a response writer that judges the
// header, feeds an event stream to a decoder, and keeps what is left of anything
// else.
type answer struct {
	// accept is called when the answer turns out to be an event stream. It
	// returns what takes its bytes, and what is called then with no lock held (R3);
	// that may be nil.
	accept func(header http.Header) (stream io.Writer, tell func())

	// heard is called for each sign of life.
	heard func()

	// restricts returns what the header says against sharing the answer.
	restricts func(header http.Header) relay.Restriction

	header  http.Header
	request atomic.Pointer[http.Request] // as the source has it
	gone    chan struct{}                // closed when nothing more is taken
	refused chan struct{}                // closed when it turns out not to be an event stream that is shared
	session atomic.Bool                  // it is one that begins a session (see newDecoder)

	// settles says that the shared connection is answered: where its stranger
	// arrives is the topic's home, which via names then.
	settles bool
	via     home

	mu sync.Mutex

	// Guarded by mu.
	closed  error // why nothing more is taken
	judged  bool
	stream  io.Writer      // decodes an event stream
	inflate io.WriteCloser // in front of it, if it is compressed
	refusal refusal
	kept    int // bytes of a body that is no event stream
}

var (
	errNotWanted = errors.New("sse_fanout does not want more of this answer")
	errAbandoned = errors.New("sse_fanout has closed this connection")
)

func newAnswer(accept func(http.Header) (io.Writer, func()), heard func(), restricts func(http.Header) relay.Restriction) *answer {
	return &answer{
		accept:    accept,
		heard:     heard,
		restricts: restricts,
		header:    make(http.Header),
		refused:   make(chan struct{}),
		gone:      make(chan struct{}),
	}
}

func (a *answer) Header() http.Header { return a.header }

// WriteHeader judges the answer. Informational answers are ignored.
func (a *answer) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		return
	}
	a.conclude(func() (tell func()) { return a.writeHeader(status) })
}

// conclude calls one of the judgements, and what that wants to be told with no lock held.
func (a *answer) conclude(judgement func() (tell func())) {
	a.mu.Lock()
	tell := judgement()
	a.mu.Unlock()
	if tell != nil {
		tell()
	}
}

func (a *answer) writeHeader(status int) (tell func()) {
	if a.judged || a.closed != nil {
		return nil
	}
	a.judged = true
	a.heard()
	a.refusal.status = status
	a.refusal.verdict = judge(status, a.header)
	a.refusal.restriction = a.restricts(a.header)
	if a.refusal.verdict == relay.Stream && a.refusal.restriction.Applies() {
		a.refusal.verdict = relay.Personal
	}
	if a.refusal.verdict != relay.Stream {
		a.refusal.header = fields.Shared(a.header)
		if encoding := a.header["Content-Encoding"]; len(encoding) > 0 {
			a.refusal.header["Content-Encoding"] = encoding // its body is shared as it is
		}
		close(a.refused)
		return nil
	}
	coding, ok := codingOf(a.header)
	if !ok {
		a.refusal.verdict = relay.Unavailable
		a.closed = fmt.Errorf("decoding the event stream: its content coding %q is not one of gzip, zstd and br; "+
			"the origin was asked not to compress", strings.Join(a.header["Content-Encoding"], ", "))
		close(a.refused)
		return nil
	}
	a.stream, tell = a.accept(a.header)
	if coding != "" {
		a.inflate = newInflater(coding, a.stream)
	}
	return tell
}

// Write takes bytes of the body. An error ends the source's answer.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.judged {
		a.mu.Unlock()
		a.WriteHeader(http.StatusOK)
		a.mu.Lock()
	}
	switch {
	case a.closed != nil:
		return 0, a.closed
	case a.refusal.verdict != relay.Stream:
		return a.keep(p)
	}
	a.heard()
	var err error
	if a.inflate != nil {
		_, err = a.inflate.Write(p)
	} else {
		_, err = a.stream.Write(p)
	}
	if err != nil {
		a.closed = err
		return 0, err
	}
	return len(p), nil
}

// keep takes the body of an answer that is no event stream: a refusal's is
// stored as far as it is shared, and what is as short from others is let pass,
// for a source that is cut off complains in the log.
func (a *answer) keep(p []byte) (int, error) {
	room := maxRefusalBody - a.kept
	n := min(len(p), room)
	a.kept += n
	if a.refusal.verdict == relay.No {
		a.refusal.body.Write(p[:n])
	}
	if n < len(p) {
		a.closed = errNotWanted
	}
	return n, a.closed
}

// FlushError sends the header, as it does in net/http. What is written is
// published at once anyway.
func (a *answer) FlushError() error {
	a.WriteHeader(http.StatusOK)
	return nil
}

// finish judges an answer whose source has returned without writing one: an
// error of Caddy's carries the status that the client would have got.
func (a *answer) finish(err error) {
	a.conclude(func() (tell func()) { return a.judgeEnd(err) })
}

func (a *answer) judgeEnd(err error) (tell func()) {
	if a.judged {
		return nil
	}
	status := http.StatusOK
	if err != nil {
		var httpErr caddyhttp.HandlerError
		if !errors.As(err, &httpErr) || httpErr.StatusCode == 0 {
			return nil
		}
		status = httpErr.StatusCode
		clear(a.header)
		defer func() {
			if isSitesWord(&httpErr) && a.refusal.verdict == relay.Unavailable {
				a.refusal.verdict = relay.No
			}
		}()
	}
	return a.writeHeader(status)
}

// isSitesWord reports whether an error is what the site answers by a directive, and not
// for want of an origin: nothing is to be had by asking again.
func isSitesWord(err *caddyhttp.HandlerError) bool {
	return strings.Contains(err.Trace, "StaticError")
}

// close makes the answer take nothing more, and waits for what it has taken to
// be decoded. It returns why the answer was cut, if it was.
func (a *answer) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inflate != nil {
		if err := a.inflate.Close(); err != nil && a.closed == nil {
			a.closed = err
		}
		a.inflate = nil
	}
	if a.session.Load() {
		a.refusal.verdict = relay.Personal
		a.refusal.restriction = relay.Restriction{Pass: string(passSession)}
	}
	why := a.closed
	if !errors.Is(why, errAbandoned) {
		a.closed = errAbandoned
		close(a.gone)
	}
	return why
}

// grace is how long a source may take for the rest of an answer that is refused.
func (a *answer) grace() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session.Load() || a.refusal.verdict == relay.Personal {
		return 0 // it goes on for ever, and is for nobody
	}
	return refusalGrace
}

// address returns the address of the origin that reverse_proxy has chosen, or ""
// if another handler is the source. Logs and administrators get to see it.
func (a *answer) address() string {
	r := a.request.Load()
	if r == nil {
		return ""
	}
	address, _ := replacerOf(r).GetString("http.reverse_proxy.upstream.hostport")
	return address
}

func replacerOf(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}
