package ssefanout

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A source answers upstream requests.
type source struct {
	handler caddyhttp.Handler
	server  *caddyhttp.Server
}

// nothingBehind is what stands behind the source of the endpoint form: a
// configured handler that does not answer has nobody to leave it to.
var nothingBehind = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return caddyhttp.Error(http.StatusInternalServerError,
		errors.New("asking the source: it has not answered the request"))
})

// endpoint returns the source of the endpoint form.
func (h *Handler) endpoint() source {
	return source{
		handler: caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return h.source.ServeHTTP(w, r, nothingBehind)
		}),
		server: h.server,
	}
}

// errNothingBehind is what the wrapping form answers when it is the last handler
// of its route.
var errNothingBehind = errors.New("sse_fanout has nothing to share: name upstreams, or put it in front of " +
	"the handler that answers, such as reverse_proxy, in the same block")

// strangerAddr is where upstream requests come from: an address that is
// nobody's (RFC 5737). Whatever judges by address, behind this handler or in
// the origin, judges a shared request a stranger.
const strangerAddr = "192.0.2.1:1"

// newUpstreamRequest makes the request that opens a topic's upstream: a function
// of what defines the topic, and of the id to resume with (R1).
func newUpstreamRequest(ctx context.Context, req *topicRequest, id string, server *caddyhttp.Server, w http.ResponseWriter) *http.Request {
	orig := req.orig
	r := &http.Request{
		Method:     http.MethodGet,
		URL:        &orig,
		RequestURI: orig.RequestURI(),
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header: http.Header{
			"Accept":          {"text/event-stream"},
			"Accept-Encoding": {"identity"},
			"Cache-Control":   {"no-cache"},
			"User-Agent":      {"caddy-sse-fanout"},
		},
		Body:       http.NoBody,
		Host:       req.host,
		RemoteAddr: strangerAddr,
	}
	if req.tls {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true}
	}
	for name, values := range req.header {
		r.Header[name] = append([]string(nil), values...)
	}
	if id != "" {
		r.Header["Last-Event-Id"] = []string{id}
	}
	if server == nil {
		server = new(caddyhttp.Server)
	}

	repl := caddy.NewReplacer()
	for _, v := range req.vary {
		repl.Set(v.name, v.value)
	}
	r = caddyhttp.PrepareRequest(r.WithContext(ctx), repl, w, server)
	for _, v := range req.vars {
		caddyhttp.SetVar(r.Context(), v.name, v.value)
	}
	for _, v := range req.vary {
		if name, ok := strings.CutPrefix(v.name, "http.vars."); ok {
			caddyhttp.SetVar(r.Context(), name, v.value)
		}
	}
	// The original request that PrepareRequest has kept is the one before
	// rewrites; from here on it is the one that the source is to answer.
	current := req.url
	r.URL = &current
	r.RequestURI = current.RequestURI()
	return r
}

// sendableID reports whether an id can be the value of a header field; if not,
// the request would never leave.
func sendableID(id string) bool {
	return id != "" && strings.IndexFunc(id, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

// An answer is what a source writes to: a response writer that judges the
// header, feeds an event stream to a decoder, and keeps what is left of anything
// else.
type answer struct {
	// accept is called when the answer turns out to be an event stream. It
	// returns what takes its bytes.
	accept func(header http.Header) io.Writer

	// heard is called for each sign of life.
	heard func()

	header  http.Header
	request *http.Request // that it is the answer to, set by ask
	refused chan struct{} // closed when it turns out not to be an event stream

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

func newAnswer(accept func(http.Header) io.Writer, heard func()) *answer {
	return &answer{accept: accept, heard: heard, header: make(http.Header), refused: make(chan struct{})}
}

func (a *answer) Header() http.Header { return a.header }

// WriteHeader judges the answer. Informational answers are ignored.
func (a *answer) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeader(status)
}

func (a *answer) writeHeader(status int) {
	if a.judged || a.closed != nil {
		return
	}
	a.judged = true
	a.heard()
	a.refusal.status = status
	a.refusal.verdict = judge(status, a.header)
	if a.refusal.verdict != verdictStream {
		a.refusal.header = sharedHeaders(a.header)
		if encoding := a.header["Content-Encoding"]; len(encoding) > 0 {
			a.refusal.header["Content-Encoding"] = encoding // its body is shared as it is
		}
		close(a.refused)
		return
	}
	encoding := strings.ToLower(strings.TrimSpace(a.header.Get("Content-Encoding")))
	if encoding != "" && encoding != "identity" && !inflatable(encoding) {
		a.refusal.verdict = verdictUnavailable
		a.closed = fmt.Errorf("decoding the event stream: its content encoding %q is none of gzip, zstd and br; "+
			"it was asked not to compress", encoding)
		close(a.refused)
		return
	}
	a.stream = a.accept(a.header)
	if inflatable(encoding) {
		a.inflate = newInflater(encoding, a.stream)
	}
}

// Write takes bytes of the body. An error ends the source's answer.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.judged {
		a.writeHeader(http.StatusOK)
	}
	switch {
	case a.closed != nil:
		return 0, a.closed
	case a.refusal.verdict != verdictStream:
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
	if a.refusal.verdict == verdictNo {
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
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.judged {
		return
	}
	status := http.StatusOK
	if err != nil {
		var httpErr caddyhttp.HandlerError
		if !errors.As(err, &httpErr) || httpErr.StatusCode == 0 {
			return
		}
		status = httpErr.StatusCode
		clear(a.header)
	}
	a.writeHeader(status)
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
	why := a.closed
	a.closed = errAbandoned
	return why
}

// address returns the address of the origin that reverse_proxy has chosen, or ""
// if another handler is the source. Logs and administrators get to see it.
func (a *answer) address() string {
	if a.request == nil {
		return ""
	}
	address, _ := replacerOf(a.request).GetString("http.reverse_proxy.upstream.hostport")
	return address
}

func replacerOf(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}

func inflatable(encoding string) bool {
	switch encoding {
	case "gzip", "x-gzip", "zstd", "br":
		return true
	}
	return false
}

// maxInflateWindow bounds the memory that a compressed stream can ask for, at
// what RFC 9659 allows zstd in HTTP.
const maxInflateWindow = 8 << 20

// An inflater decompresses what is written to it into another writer. The
// decompressors pull, and a source pushes, hence the goroutine and the pipe; a
// Write returns once its bytes have been taken.
type inflater struct {
	*io.PipeWriter
	done chan error
}

func newInflater(encoding string, to io.Writer) *inflater {
	pipe, in := io.Pipe()
	f := &inflater{PipeWriter: in, done: make(chan error, 1)}
	go func() {
		err := inflate(encoding, pipe, to)
		pipe.CloseWithError(err)
		f.done <- err
	}()
	return f
}

// Close waits for the goroutine to end.
func (f *inflater) Close() error {
	_ = f.PipeWriter.Close()
	err := <-f.done
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// A stream is cut anywhere; what came before has been delivered.
		return nil
	}
	return err
}

func inflate(encoding string, from io.Reader, to io.Writer) error {
	var r io.Reader
	switch encoding {
	case "br":
		r = brotli.NewReader(from)
	case "zstd":
		d, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxInflateWindow))
		if err != nil {
			return fmt.Errorf("decoding zstd: %w", err)
		}
		defer d.Close()
		r = d
	default:
		d, err := gzip.NewReader(from)
		if err != nil {
			return fmt.Errorf("decoding gzip: %w", err)
		}
		r = d
	}
	if _, err := io.Copy(to, r); err != nil {
		return fmt.Errorf("decoding %s: %w", encoding, err)
	}
	return nil
}

// An outcome is how a connection to a source ended.
type outcome struct {
	refusal
	err        error         // why it ended, nil for a clean end
	address    string        // of the origin, if the source names it
	retryAfter time.Duration // what the origin asked for
}

// ask sends the request for a topic to its source and returns when the source
// has answered it to the end, or when ctx has ended and the source was given
// some time to notice.
func ask(ctx context.Context, src source, req *topicRequest, id string, a *answer) outcome {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What a source is cancelled with must be context.Canceled itself: anything
	// else reverse_proxy logs as an error, and its passive health checks count it
	// against the origin.
	plain, cancelPlain := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelPlain()
	defer context.AfterFunc(ctx, cancelPlain)()
	r := newUpstreamRequest(plain, req, id, src.server, a)
	a.request = r
	done := make(chan error, 1)
	go func() { done <- serveSource(src.handler, a, r) }()

	err := awaitSource(ctx, cancel, done, a)
	a.finish(err)
	cut := a.close()

	out := outcome{refusal: a.refusal, err: err, address: a.address()}
	switch cause := context.Cause(ctx); {
	case errors.Is(cut, errNotWanted), errors.Is(cause, errNotWanted) && cut == nil:
		out.err = nil
	case errors.Is(cause, errNotWanted):
		out.err = cut
	case cause != nil:
		out.err = cause
		if out.verdict != verdictStream {
			// What a source makes of being cancelled is not the origin's word.
			out.refusal = refusal{}
		}
	case cut != nil:
		out.err = cut
	}
	out.retryAfter = retryAfter(out.header, time.Now())
	if ctx.Err() == nil {
		out.unhandled, _ = caddyhttp.GetVar(r.Context(), "unhandled").(bool)
	}
	return out
}

const (
	// sourceGrace is how long a source may take to end after its request has.
	sourceGrace = 2 * time.Second

	// refusalGrace is how long the body of an answer that is no event stream may
	// take. What is longer is a stream of another kind.
	refusalGrace = 250 * time.Millisecond
)

// awaitSource waits for the source to return. If it was cancelled, the error
// says why.
func awaitSource(ctx context.Context, cancel context.CancelCauseFunc, done <-chan error, a *answer) error {
	select {
	case err := <-done:
		return err
	case <-a.refused:
		select {
		case err := <-done:
			return err
		case <-time.After(refusalGrace):
			cancel(errNotWanted)
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	// Every handler of Caddy's own ends soon after its request, but FastCGI
	// notices only at its next byte. What it writes is refused.
	select {
	case <-done: //nolint:errcheck // that of a source that was cancelled says nothing
	case <-time.After(sourceGrace):
	}
	return context.Cause(ctx)
}

// serveSource calls the source and turns a panic into an error: for a handler,
// http.ErrAbortHandler is the way to say that the stream broke.
func serveSource(h caddyhttp.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = fmt.Errorf("reading the event stream: %w", p)
		default:
			err = fmt.Errorf("reading the event stream: the handler behind panicked: %v", p)
		}
	}()
	return h.ServeHTTP(w, r)
}
