package ssefanout

import (
	"errors"
	"net/http"
	"strconv"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
	"github.com/sse-fanout/caddy-sse-fanout/internal/cors"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
)

// An unknownPlaceholder is the place in VaryPlaceholders of one that a request did not have.
type unknownPlaceholder int

// newTopicRequest extracts from r what defines its topic. It says once of each placeholder
// in vary if it is unknown.
func (h *instance) newTopicRequest(r *http.Request) *request.Shared {
	req := request.NewShared(r, h.settings)
	for i, name := range h.settings.VaryPlaceholders {
		if !req.HasPlaceholder(name) && h.notices.Once(unknownPlaceholder(i), "") {
			h.logger.Warn("sharing a topic among requests for which a placeholder in vary is unknown",
				zap.String("placeholder", "{"+name+"}"),
				zap.String("hint", "check its spelling, and that what sets it stands in front of sse_fanout"))
		}
	}
	return req
}

// maxJoins is how often a client joins that meets topics which are over.
const maxJoins = 3

// serve makes r a subscriber of the topic for req, as often as it must join again,
// and returns when its stream has ended. If nothing was written because r must pass
// one to one, the error is a pass.Reason.
func (p *pool) serve(w http.ResponseWriter, r *http.Request, req *request.Shared, h *instance) error {
	a := &arrival{handler: h, asking: multiplexedAs(w, r)}
	if a.asking == nil {
		if err := p.refuseCodings(w, r); err != nil {
			return err
		}
	}
	if p.opts.Wrapping {
		a.facts = h.factsOf(r)
		if passed := p.passing.Recall(a.key(req.Key())); passed != "" {
			return passed
		}
	}
	if !p.varying.Empty() {
		if names := p.varying.Recall(req.Key()); len(names) > 0 {
			req = req.VaryingBy(names, r.Header)
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
			req = req.VaryingBy(names, r.Header) // with more names each time, of which there are MaxLearned
		}
	}
}

// join makes r a reader of the topic for req.
func (p *pool) join(r *http.Request, req *request.Shared, a *arrival) (*relay.Reader, relay.Rejection, error) {
	key := req.Key()
	if p.relay.IsOver() {
		return nil, relay.RejectEnding, nil
	}
	if passed := p.passing.Recall(key); passed != "" {
		return nil, "", passed
	}
	v := &relay.Visit{
		Key:  key,
		Name: func() string { return req.PublicName(key) },
		Open: func(t *relay.Topic) relay.Source {
			u := &upstream{pool: p, topic: t, request: req}
			a.handler.fleet.join(u)
			return u
		},
		Claim:    request.ClaimOf(r),
		Address:  request.CountedAddress(request.ClientIP(r)),
		Audience: uint8(audience.Of(r, p.opts.Primer)),
		Patient:  p.needsOriginsWord(r),
	}
	if a.asking != nil {
		v.Claim = p.multiplexedClaim(a.asking, key, v.Claim)
		v.Audience = uint8(audience.Multiplexed)
	}
	if p.opts.Wrapping {
		if passed := p.passing.Recall(a.handler.frontKey(key)); passed != "" {
			return nil, "", passed
		}
		if a.handler.front.AsksNothing() {
			v.Barred = pass.Front
		}
		v.Gate = a
	}
	return p.relay.Join(v)
}

// subscribe makes r a subscriber of the topic for req and returns when its stream has
// ended. If nothing was written because r must pass one to one, the error is a
// pass.Reason, and if it must join another topic, a joinAgainError.
func (p *pool) subscribe(w http.ResponseWriter, r *http.Request, req *request.Shared, a *arrival) error {
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
	observe.DescribeTopic(r, t)

	adm := reader.Admit(r.Context())
	switch {
	case adm.Gone:
		observe.Describe(r, relay.Pending.String(), string(relay.EndClientGone))
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
	p.ExplainPrivate(t, adm.Header)
	if a.asking != nil {
		a.asking.Take(reader)
		reader = nil // it is the connection's now
		observe.Describe(r, observe.OutcomeMultiplexed, "")
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
		a.handler.frontFailed(p, t, no.Front)
		return pass.Front
	case no.IsPersonal(p.opts.Wrapping):
		return restrictionError(&no.Restriction)
	}
	observe.Describe(r, observe.OutcomeRefused, no.Verdict.String())
	p.ExplainRefusal(p.opts, t, no, r)
	switch {
	case no.Verdict == relay.NotStream:
		return pass.NotStream
	case p.opts.Wrapping:
		return pass.Refused
	}
	return answerRefusal(w, r, no, &p.opts.CORS)
}

// answerRefusal answers a client with the origin's no.
func answerRefusal(w http.ResponseWriter, r *http.Request, no *relay.Outcome, cors *cors.Policy) error {
	header := w.Header()
	header.Del("Server") // as reverse_proxy does, for it is not Caddy's answer
	fields.Copy(header, no.Header)
	cors.Apply(header, r)
	if no.Status == http.StatusNoContent || no.Status == http.StatusNotModified {
		w.WriteHeader(no.Status)
		return nil
	}
	header.Set("Content-Length", strconv.Itoa(len(no.Body)))
	w.WriteHeader(no.Status)
	_, _ = w.Write(no.Body) // the header is out: there is no error to tell
	return nil
}

// explainPass says how an operator can have requests like r shared after all.
func (h *instance) explainPass(p *pool, why pass.Reason, r *http.Request) {
	var header string
	if why == pass.Header {
		header = pass.IdentifyingHeader(r, h.settings, h.surroundings) // of several, another with each request
	}
	p.Observer.ExplainPass(h.logger, why, header)
}

// pass sends r on one to one. If it is answered with an event stream, its client
// counts for the limits like a subscriber.
func (h *instance) pass(p *pool, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, why pass.Reason) error {
	pw := pass.NewWriter(&p.places, w, r)
	if why.PresumesStream() && fields.WantsOnlyEventStream(r.Header) {
		// The origin need not be asked for what its client could not have.
		if rejected := pw.Claim(); rejected != "" {
			return p.turnAway(w, r, rejected, nil)
		}
	}
	p.stats.Passed.Count(why)
	observe.Describe(r, observe.OutcomePassed, string(why))
	return pw.Serve(r, func() error {
		if h.wraps() {
			return next.ServeHTTP(pw, r)
		}
		return h.source.ServeHTTP(pw, r, next)
	})
}

// Interface guards
var _ relay.Observer = (*pool)(nil)
