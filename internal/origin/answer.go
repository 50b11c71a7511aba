package origin

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
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// Options are what an answer is taken by.
type Options struct {
	// MaxEventSize is that of the largest event, and of the longest line, in bytes.
	MaxEventSize int64

	// Guarded says that a first event that only looks like one that begins a session is
	// taken for one.
	Guarded bool

	// Restricts returns what the header of an answer says against sharing it.
	Restricts func(header http.Header) relay.Restriction

	// Accepting, if set, is called when the answer has turned out to be an event stream,
	// before the sink is told.
	Accepting func()

	// Session is the reason of the restriction of an answer that begins a session.
	Session string
}

// An Answer is what a source writes to: a response writer that judges the
// header, feeds an event stream to a sink, and keeps what is left of anything
// else.
type Answer struct {
	opts Options
	sink relay.Sink

	header  http.Header
	request atomic.Pointer[http.Request] // as the source has it
	gone    chan struct{}                // closed when nothing more is taken
	refused chan struct{}                // closed when it turns out not to be an event stream that is shared
	session atomic.Bool                  // it is one that begins a session (see newDecoder)

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

// NewAnswer returns an answer that feeds a sink.
func NewAnswer(opts Options, sink relay.Sink) *Answer {
	return &Answer{
		opts:    opts,
		sink:    sink,
		header:  make(http.Header),
		refused: make(chan struct{}),
		gone:    make(chan struct{}),
	}
}

// Asked records the request as the source has it.
func (a *Answer) Asked(r *http.Request) { a.request.Store(r) }

// Request returns the request as the source has it, or nil if it has none.
func (a *Answer) Request() *http.Request { return a.request.Load() }

// Header implements http.ResponseWriter.
func (a *Answer) Header() http.Header { return a.header }

// WriteHeader judges the answer. Informational answers are ignored.
func (a *Answer) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		return
	}
	a.conclude(func() (tell func()) { return a.writeHeader(status) })
}

// conclude calls one of the judgements, and what that wants to be told with no lock held.
func (a *Answer) conclude(judgement func() (tell func())) {
	a.mu.Lock()
	tell := judgement()
	a.mu.Unlock()
	if tell != nil {
		tell()
	}
}

func (a *Answer) writeHeader(status int) (tell func()) {
	if a.judged || a.closed != nil {
		return nil
	}
	a.judged = true
	a.sink.Heard()
	a.refusal.status = status
	a.refusal.verdict = Judge(status, a.header)
	a.refusal.restriction = a.opts.Restricts(a.header)
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
	if a.opts.Accepting != nil {
		a.opts.Accepting()
	}
	tell = a.sink.Accept(relay.Opening{Header: fields.Shared(a.header), Address: a.Address()})
	a.stream = &decoding{answer: a, decoder: a.newDecoder()}
	if coding != "" {
		a.inflate = newInflater(coding, a.stream)
	}
	return tell
}

// Write takes bytes of the body. An error ends the source's answer.
func (a *Answer) Write(p []byte) (int, error) {
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
	a.sink.Heard()
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
func (a *Answer) keep(p []byte) (int, error) {
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
func (a *Answer) FlushError() error {
	a.WriteHeader(http.StatusOK)
	return nil
}

// finish judges an answer whose source has returned without writing one: an
// error of Caddy's carries the status that the client would have got.
func (a *Answer) finish(err error) {
	a.conclude(func() (tell func()) { return a.judgeEnd(err) })
}

func (a *Answer) judgeEnd(err error) (tell func()) {
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
func (a *Answer) close() error {
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
		a.refusal.restriction = relay.Restriction{Pass: a.opts.Session}
	}
	why := a.closed
	if !errors.Is(why, errAbandoned) {
		a.closed = errAbandoned
		close(a.gone)
	}
	return why
}

// grace is how long a source may take for the rest of an answer that is refused.
func (a *Answer) grace() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session.Load() || a.refusal.verdict == relay.Personal {
		return 0 // it goes on for ever, and is for nobody
	}
	return refusalGrace
}

// Address returns the address of the origin that reverse_proxy has chosen, or ""
// if another handler is the source. Logs and administrators get to see it.
func (a *Answer) Address() string {
	r := a.request.Load()
	if r == nil {
		return ""
	}
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	address, _ := repl.GetString("http.reverse_proxy.upstream.hostport")
	return address
}

// A decoding is the body of an answer that is an event stream.
type decoding struct {
	answer  *Answer
	decoder *sse.Decoder
}

// Write implements io.Writer.
func (d *decoding) Write(p []byte) (int, error) {
	n, err := d.decoder.Write(p)
	d.answer.sink.Flush()
	if errors.Is(err, sse.ErrEventTooLarge) {
		err = fmt.Errorf("reading the event stream: %w: raise max_event_size above %d bytes if such events are meant",
			err, d.answer.opts.MaxEventSize)
	}
	return n, err
}

// Interface guards
var _ http.ResponseWriter = (*Answer)(nil)
