package ssefanout

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// turnAway answers a client that cannot be served now. A browser's EventSource
// comes back by itself after an event stream that ends, and never after an
// error. If the origin was asked, origins is what its answer shares.
func (p *pool) turnAway(w http.ResponseWriter, r *http.Request, why relay.Rejection, origins http.Header) error {
	p.stats.Rejected.Count(why)
	observe.Describe(r, observe.OutcomeRejected, string(why))
	if c := p.Log().Check(zapcore.DebugLevel, "turning a client away"); c != nil {
		c.Write(zap.String("reason", string(why)))
	}
	p.LimitReached(why)
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(p.dispatchTimeout()))
	carrier.CloseIfUnread(w, r)
	delay := relay.TurnAwayDelay()
	if why == relay.RejectEnding {
		// The replacement is up, or will be in a moment.
		delay = p.opts.ReconnectionTime() + rand.N(time.Duration(p.opts.StreamCloseDelay)+1)
	}
	if a := multiplex.Of(r); a != nil && !p.opts.Reject {
		a.TurnAway(delay)
		return nil
	}
	if p.opts.Reject {
		fields.Copy(w.Header(), origins)
		w.Header().Set("Retry-After", strconv.Itoa(int((delay+time.Second-1)/time.Second)))
		p.opts.CORS.Apply(w.Header(), r)
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
	if p.opts.Words[audience.Of(r, p.opts.Primer)].Primer {
		words = append(relay.AppendRetryField(nil, delay), '\n')
	}
	if _, err := w.Write(words); err == nil { //nolint:gosec // a number
		_ = control.Flush()
	}
	return nil // the header is out: an error page would end up in the stream
}

// needsOriginsWord reports whether only the origin can tell if the page behind r
// may read the stream. Such a client cannot be held without it: a browser gives
// up for good on an answer that does not allow its page.
func (p *pool) needsOriginsWord(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || p.opts.CORS.Enabled() {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}
