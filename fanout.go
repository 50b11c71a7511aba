package ssefanout

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A pool is the topics of one handler. It outlives the handler: first over a
// reload that leaves the handler's configuration as it was, then for as long as
// it takes to end its subscribers.
type pool struct {
	lineage *lineage
	opts    *Options
	relay   *relay.Relay
	stats   *stats
	direct  *direct.Writer
	carrier carrier.Carrier

	logger  atomic.Pointer[zap.Logger]
	notices notices
	passing keyMemory[passReason] // the keys whose requests pass one to one at once, and why
	varying keyMemory[[]string]   // the headers that have joined a key

	retired chan struct{} // closed when the relay is over, and nothing of it goes on
}

func newPool(l *lineage, h *Handler) *pool {
	// A copy, so that a pool that outlives its configuration does not keep it
	// in memory.
	opts := h.Options
	p := &pool{
		lineage: l,
		opts:    &opts,
		stats:   counted,
		retired: make(chan struct{}),
	}
	sockets := h.sockets
	if sockets == nil {
		sockets = carrier.Kernel{}
	}
	p.relay = relay.New(opts.relayConfig(), p, &p.stats.Stats)
	p.direct = direct.NewWriter(direct.Options{
		Timeout:  p.dispatchTimeout(),
		Panicked: p.panicked,
		Network:  sockets.Network,
	})
	p.carrier = carrier.Carrier{
		Timeout:   p.dispatchTimeout(),
		Direct:    p.direct,
		HandsOver: opts.Direct != "off",
		Sockets:   sockets,
		Kept:      p.kept,
		Delivered: p.Delivered,
	}
	p.logger.Store(h.logger)
	alive.add(p)
	if caddy.Exiting() {
		// Whoever ends all pools may have looked for them before.
		p.relay.End(relay.Ending{Reason: relay.EndExiting})
	}
	return p
}

// panicked logs a panic in a callback of direct delivery, as net/http does of a handler's.
func (p *pool) panicked(value any) {
	p.log().Error("a callback has panicked", zap.Any("panic", value), zap.Stack("stack"))
}

// Retired implements relay.Observer.
func (p *pool) Retired() {
	p.direct.Close()
	alive.remove(p)
	close(p.retired)
}

func (p *pool) log() *zap.Logger { return p.logger.Load() }

func (p *pool) dispatchTimeout() time.Duration { return time.Duration(p.opts.DispatchTimeout) }

// source returns what answers upstream requests from now on, unless the pool is
// over.
func (p *pool) source() (source, bool) {
	if p.relay.IsOver() {
		return source{}, false
	}
	return p.lineage.source()
}

// joinAgainError tells a client, as an error, to join again: with these headers in
// its key, as the origin's answers vary by them, or as before, if there are none.
type joinAgainError []string

func (names joinAgainError) Error() string {
	return "joining again with a key that has " + strings.Join(names, ", ")
}

// maxJoins is how often a client joins that meets topics which are over.
const maxJoins = 3

// serve makes r a subscriber of the topic for req, as often as it must join again,
// and returns when its stream has ended. If nothing was written because r must pass
// one to one, the error is a passReason.
func (p *pool) serve(w http.ResponseWriter, r *http.Request, req *topicRequest, h *Handler) error {
	a := &arrival{handler: h, asking: multiplexedAs(w, r)}
	if p.opts.wrapping {
		a.facts = h.factsOf(r)
		if passed := p.passing.recall(a.key(req.key())); passed != "" {
			return passed
		}
	}
	if !p.varying.empty() {
		if names := p.varying.recall(req.key()); len(names) > 0 {
			req = req.varyingBy(names, r.Header)
		}
	}
	for joined := 1; ; {
		a.mayJoinAgain = joined < maxJoins
		err := p.subscribe(w, r, req, a)
		names, again := errors.AsType[joinAgainError](err)
		switch {
		case !again:
			return err
		case len(names) == 0:
			joined++
		default:
			req = req.varyingBy(names, r.Header) // with more names each time, of which there are maxLearned
		}
	}
}

// join makes r a reader of the topic for req.
func (p *pool) join(r *http.Request, req *topicRequest, a *arrival) (*relay.Reader, relay.Rejection, error) {
	key := req.key()
	if p.relay.IsOver() {
		return nil, relay.RejectEnding, nil
	}
	if passed := p.passing.recall(key); passed != "" {
		return nil, "", passed
	}
	v := &relay.Visit{
		Key:      key,
		Name:     func() string { return req.publicName(key) },
		Open:     func(t *relay.Topic) relay.Source { return &upstream{pool: p, topic: t, request: req} },
		Claim:    claimOf(r),
		Address:  countedAddress(clientIP(r)),
		Audience: uint8(p.opts.audienceOf(r)),
		Patient:  p.needsOriginsWord(r),
	}
	if a.asking != nil {
		v.Claim = p.multiplexedClaim(a.asking, key, v.Claim)
		v.Audience = uint8(multiplexed)
	}
	if p.opts.wrapping {
		if passed := p.passing.recall(a.handler.frontKey(key)); passed != "" {
			return nil, "", passed
		}
		if a.handler.asksNothing() {
			v.Barred = passFront
		}
		v.Gate = a
	}
	return p.relay.Join(v)
}

// subscribe makes r a subscriber of the topic for req and returns when its stream has
// ended. If nothing was written because r must pass one to one, the error is a
// passReason, and if it must join another topic, a joinAgainError.
func (p *pool) subscribe(w http.ResponseWriter, r *http.Request, req *topicRequest, a *arrival) error {
	reader, rejected, err := p.join(r, req, a)
	switch {
	case err != nil:
		return err
	case rejected != "":
		return p.turnAway(w, r, rejected, nil)
	}
	defer func() {
		if reader != nil {
			reader.Close()
		}
	}()
	t := reader.Topic()
	upstreamOf(t).seek(a.handler)
	describeTopic(r, t)

	adm := reader.Admit(r.Context())
	switch {
	case adm.Gone:
		describe(r, relay.Pending.String(), string(relay.EndClientGone))
		return nil
	case errors.Is(adm.Barred, errOutdated):
		return p.turnAway(w, r, relay.RejectEnding, nil)
	case adm.Barred != nil:
		return adm.Barred
	case adm.Drained && a.mayJoinAgain && p.lineage.isNewest(a.handler):
		return joinAgainError(nil)
	case adm.Rejected != "":
		return p.turnAway(w, r, adm.Rejected, nil)
	case adm.Refusal != nil:
		return p.serveRefusal(w, r, t, adm.Refusal, a)
	}
	p.explainPrivate(t, adm.Header)
	if a.asking != nil {
		a.asking.Take(reader)
		reader = nil // it is the connection's now
		describe(r, outcomeMultiplexed, "")
		p.writeHeader(w, r, adm.Header)
		return nil
	}
	return p.carry(w, r, reader, adm.Header)
}

// serveRefusal answers a client that has waited with the origin's no, or says that its
// own request must pass.
func (p *pool) serveRefusal(w http.ResponseWriter, r *http.Request, t *relay.Topic, no *relay.Outcome, a *arrival) error {
	switch {
	case no.Verdict == relay.Elsewhere:
		a.handler.frontFailed(upstreamOf(t), no.Front)
		return passFront
	case no.IsPersonal(p.opts.wrapping):
		return restrictionError(&no.Restriction)
	}
	describe(r, outcomeRefused, no.Verdict.String())
	p.explainRefusal(t, no, r)
	switch {
	case no.Verdict == relay.NotStream:
		return passNotStream
	case p.opts.wrapping:
		return passRefused
	}
	return answerRefusal(w, r, no, &p.opts.cors)
}

// needsOriginsWord reports whether only the origin can tell if the page behind r
// may read the stream. Such a client cannot be held without it: a browser gives
// up for good on an answer that does not allow its page.
func (p *pool) needsOriginsWord(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || p.opts.cors.enabled() {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// answerRefusal answers a client with the origin's no.
func answerRefusal(w http.ResponseWriter, r *http.Request, no *relay.Outcome, cors *corsPolicy) error {
	header := w.Header()
	header.Del("Server") // as reverse_proxy does, for it is not Caddy's answer
	fields.Copy(header, no.Header)
	cors.apply(header, r)
	if no.Status == http.StatusNoContent || no.Status == http.StatusNotModified {
		w.WriteHeader(no.Status)
		return nil
	}
	header.Set("Content-Length", strconv.Itoa(len(no.Body)))
	w.WriteHeader(no.Status)
	_, _ = w.Write(no.Body) // the header is out: there is no error to tell
	return nil
}
