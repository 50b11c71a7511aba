package ssefanout

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// turnAway answers a client that cannot be served now. A browser's EventSource
// comes back by itself after an event stream that ends, and never after an
// error. If the origin was asked, origins is what its answer shares.
func (p *pool) turnAway(w http.ResponseWriter, r *http.Request, why relay.Rejection, origins http.Header) error {
	p.stats.Rejected.Count(why)
	describe(r, outcomeRejected, string(why))
	if c := p.log().Check(zapcore.DebugLevel, "turning a client away"); c != nil {
		c.Write(zap.String("reason", string(why)))
	}
	p.warnOfLimit(why)
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(p.dispatchTimeout()))
	closeIfUnread(w, r)
	delay := relay.TurnAwayDelay()
	if why == relay.RejectEnding {
		// The replacement is up, or will be in a moment.
		delay = p.opts.reconnectionTime() + rand.N(time.Duration(p.opts.StreamCloseDelay)+1)
	}
	if a := multiplex.Of(r); a != nil && !p.opts.reject {
		a.TurnAway(delay)
		return nil
	}
	if p.opts.reject {
		fields.Copy(w.Header(), origins)
		w.Header().Set("Retry-After", strconv.Itoa(int((delay+time.Second-1)/time.Second)))
		p.opts.cors.apply(w.Header(), r)
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	}
	if origins == nil && p.needsOriginsWord(r) {
		// To a browser, a stream that its page may not read is an error for
		// good, and a connection that breaks is not.
		panic(http.ErrAbortHandler)
	}
	p.writeHeader(w, r, origins)
	var words []byte
	if p.opts.words[p.opts.audienceOf(r)].Primer {
		words = append(relay.AppendRetryField(nil, delay), '\n')
	}
	if _, err := w.Write(words); err == nil { //nolint:gosec // a number
		_ = control.Flush()
	}
	return nil // the header is out: an error page would end up in the stream
}

// readableBy returns those headers of an origin's answer that say which pages may
// read it.
func readableBy(header http.Header) http.Header {
	some := make(http.Header)
	for name, values := range header {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			some[name] = values
		}
	}
	return some
}

// warnOfLimit logs that clients are turned away, if why is a limit.
func (p *pool) warnOfLimit(why relay.Rejection) {
	if !slices.Contains(relay.Limits, why) {
		return
	}
	if n, due := p.notices.count(why, 1); due {
		p.log().Warn("turning clients away, as a limit is reached",
			zap.String("reason", string(why)),
			zap.Uint64("clients", n))
	}
}
